"""The error table, and the errors made from it."""

from __future__ import annotations

import string

import pytest
from jscore_server.jetstream.errors import ERRORS, problem


def test_the_table_is_whole() -> None:
    assert len(ERRORS) == 222
    assert min(ERRORS) == 10002
    assert max(ERRORS) == 10223
    assert len({kind.constant for kind in ERRORS.values()}) == 222
    assert {kind.code for kind in ERRORS.values()} == {400, 404, 409, 412, 429, 500, 503}


@pytest.mark.parametrize(
    ("number", "values", "code", "text"),
    [
        (10059, {}, 404, "stream not found"),
        (10014, {}, 404, "consumer not found"),
        (10025, {"err": 'json: unknown field "a{b}"'}, 400, 'invalid JSON: json: unknown field "a{b}"'),
        (10043, {"seq": 7}, 400, "sequence 7 not found"),
        (10052, {"err": "maximum replicas is 5"}, 500, "maximum replicas is 5"),
        (10071, {"seq": 3}, 400, "wrong last sequence: 3"),
    ],
)
def test_an_error_has_its_code_and_text(number: int, values: dict[str, object], code: int, text: str) -> None:
    err = problem(number, **values)
    assert err.to_dict() == {"code": code, "err_code": number, "description": text}
    assert (err.code, err.err_code, err.description) == (code, number, text)


def test_every_text_can_be_filled() -> None:
    for number, kind in ERRORS.items():
        fields = {name for _, name, _, _ in string.Formatter().parse(kind.text) if name is not None}
        assert problem(number, **dict.fromkeys(fields, "v")).description.count("{") == 0


def test_a_missing_value_or_number_is_our_mistake() -> None:
    with pytest.raises(KeyError):
        problem(10025)
    with pytest.raises(KeyError):
        problem(10001)
