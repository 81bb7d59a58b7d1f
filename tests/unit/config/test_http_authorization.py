"""The block that closes the monitoring port: one that closes nothing is a fault."""

from __future__ import annotations

import pytest
from jscore_server.config.lexer import ConfigError
from jscore_server.config.options import MonitoringAuthorization, Options
from jscore_server.config.parser import parse
from jscore_server.config.schema import options_from


def read(text: str) -> Options:
    return options_from(parse(text, "x.conf", read=lambda path: "", environ={}), "x.conf")[0]


def test_user_token_and_health() -> None:
    assert not read("port: 4222").http_authorization.required
    options = read('http_authorization { user: me, pass: "s", token: t, healthz: open }')
    assert options.http_authorization == MonitoringAuthorization("me", "s", "t", "open")
    assert options.http_authorization.required
    assert read("http_authorization { token: t }").http_authorization.required


@pytest.mark.parametrize(
    "block",
    ["{}", "{ user: me }", "{ password: x }", "{ token: t, password: x }", "{ token: t, healthz: maybe }", "yes"],
)
def test_what_closes_nothing_is_a_fault(block: str) -> None:
    with pytest.raises(ConfigError):
        read(f"http_authorization {block}")
