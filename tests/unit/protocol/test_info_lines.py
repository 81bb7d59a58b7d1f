"""INFO lines that are put together from halves say what whole ones say."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from jscore_server.protocol.info import LINES_KEPT, ClientLines, ServerFacts, client_info, line

TRAPS = '"client_id":0,"client_ip":"?"'


def facts(**more: Any) -> ServerFacts:
    fields: dict[str, Any] = {
        "server_id": "N",
        "server_name": TRAPS,
        "version": "2.14.5",
        "own_version": "1",
        "host": "h",
        "port": 4222,
        "max_payload": 1 << 20,
        "jetstream": True,
    }
    return ServerFacts(**{**fields, **more})


KINDS = [
    {"auth_required": asked, "account": account, "system": system, "max_payload": most}
    for asked, account, system, most in itertools.product(
        (False, True), ("", "A", TRAPS), (False, True), (None, 100, 1 << 30)
    )
]


@pytest.mark.parametrize("ip", ["", "127.0.0.1", "fe80::1", 'a"b\\', "?"])
def test_halves_and_a_number_are_the_whole_line(ip: str) -> None:
    lines = ClientLines()
    of = facts(cluster="c", connect_urls=["a:1"], tls={"tls_required": True})
    for number, kind in itertools.product((0, 1, 1 << 40), KINDS):
        whole = line(client_info(of, client_id=number, client_ip=ip, **kind))
        assert lines.line(of, client_id=number, client_ip=ip, **kind) == whole


def test_a_server_of_whom_something_else_is_true_says_so_at_once() -> None:
    lines = ClientLines()
    of = facts()
    for name, value in (
        ("connect_urls", ["a:1"]),
        ("connect_urls", ["a:1", "b:2"]),
        ("lame_duck", True),
        ("cluster", "c"),
        ("max_payload", 5),
        ("tls", {"tls_available": True}),
        ("port", 1),
        ("domain", "d"),
    ):
        lines.line(of, client_id=1, client_ip="::1")
        setattr(of, name, value)
        assert lines.line(of, client_id=1, client_ip="::1") == line(client_info(of, client_id=1, client_ip="::1"))


def test_accounts_without_number_take_no_room_without_bound() -> None:
    lines = ClientLines()
    for i in range(3 * LINES_KEPT):
        assert f'"A{i}"'.encode() in lines.line(facts(), client_id=1, client_ip="::1", account=f"A{i}")
        assert len(lines._halves) <= LINES_KEPT
