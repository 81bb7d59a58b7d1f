"""Users' names as subjects of certificates, and hosts among their names."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jscore_server.protocol.certificate import escaped
from jscore_server.protocol.mapping import known_host, parse_subject


def group(*pairs: tuple[str, str]) -> frozenset[tuple[str, str]]:
    return frozenset(pairs)


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("CN=a", (group(("CN", "a")),)),
        (" cn = a b , O= c", (group(("CN", "a b")), group(("O", "c")))),
        ("OU=A+CN=joe,O=x", (group(("OU", "A"), ("CN", "joe")), group(("O", "x")))),
        ("O=a\\,b,CN=\\ q\\ ", (group(("O", "a,b")), group(("CN", " q ")))),
        ("CN=\\41b", (group(("CN", "Ab")),)),
        ("CN=", (group(("CN", "")),)),
    ],
)
def test_a_name_that_is_a_subject(text: str, subject: object) -> None:
    assert parse_subject(text) == subject


@pytest.mark.parametrize("text", ["", "joe", "e@x.com", "CN=a,", "CN=a,b", "=a", "CN=a\\"])
def test_a_name_that_is_none(text: str) -> None:
    assert parse_subject(text) is None


@given(st.text(max_size=20))
@example(" ")
@example("# ")
def test_what_was_escaped_is_read_back(value: str) -> None:
    assert parse_subject(f"CN={escaped(value)},O=x") == (group(("CN", value)), group(("O", "x")))


def test_any_text_is_read_without_a_fault() -> None:
    @given(st.text(alphabet="CN=,+;\\ a0f#", max_size=30))
    def read(text: str) -> None:
        parse_subject(text)

    read()


def test_hosts_match_by_labels() -> None:
    assert known_host(["A.b.c"], ["a.B.c"])
    assert known_host(["*.b.c"], ["a.b.c"])
    assert not known_host(["*.b.c"], ["a.x.b.c", "b.c"])
    assert not known_host(["a.*.c", "*"], ["a.b.c"])
