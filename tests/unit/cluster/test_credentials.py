"""What a peer gives as user and password counts only when it is both, whatever else JSON can say there."""

from __future__ import annotations

import pytest
from jscore_server.passwords import same_pair

WANTED = ("route", "secret")


def test_both_must_be_right() -> None:
    assert same_pair(("route", "secret"), WANTED)
    assert not same_pair(("route", "secre"), WANTED)
    assert not same_pair(("rout", "secret"), WANTED)


@pytest.mark.parametrize("given", [(None, None), ("route", None), (1, "secret"), ({}, []), (True, True)])
def test_other_kinds_are_wrong(given: tuple[object, object]) -> None:
    assert not same_pair(given, WANTED)
    assert not same_pair(given, ("", "")), "not even where nothing is wanted"
