"""The monitoring port lets in who shows the password or the token, and nobody else."""

from __future__ import annotations

import asyncio
import base64

import pytest
from jscore_server.config.options import MonitoringAuthorization
from jscore_server.monitoring.gate import Gate
from jscore_server.monitoring.http import Answer, Request
from jscore_server.passwords import Passwords


def encoded(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


def status(wanted: MonitoringAuthorization, authorization: str, path: str = "/varz") -> int:
    async def pages(request: Request) -> Answer:
        return Answer(200, b"{}")

    async def work() -> Answer:
        passwords = Passwords(asyncio.get_running_loop())
        try:
            gate = Gate(lambda: wanted, passwords, pages, lambda: "/healthz")
            return await gate.handle(Request("GET", path, {}, False, authorization))
        finally:
            passwords.close()

    answer = asyncio.run(asyncio.wait_for(work(), 20))
    assert (answer.status == 401) == ("WWW-Authenticate" in answer.headers)
    return answer.status


def test_everybody_may_when_nothing_is_wanted() -> None:
    assert status(MonitoringAuthorization(), "") == 200


@pytest.mark.parametrize(
    ("authorization", "wanted"),
    [
        (encoded("scraper:secret:with:colons"), 200),
        ("basic " + encoded("scraper:secret:with:colons")[6:], 200),
        (encoded("scraper:secret"), 401),
        (encoded("other:secret:with:colons"), 401),
        (encoded("scraper"), 401),
        ("Basic ???", 401),
        ("Basic " + "A" * 5000, 401),
        ("Basic /w==", 401),
        ("Bearer tok-en", 200),
        ("Bearer tok", 401),
        ("Bearer ", 401),
        ("Digest x", 401),
        ("", 401),
    ],
)
def test_a_password_or_a_token_is_asked_for(authorization: str, wanted: int) -> None:
    login = MonitoringAuthorization("scraper", "secret:with:colons", "tok-en")
    assert status(login, authorization) == wanted


def test_a_token_alone_takes_no_empty_password() -> None:
    assert status(MonitoringAuthorization(token="tok-en"), encoded(":")) == 401


def test_a_hash_stands_for_its_password() -> None:
    bcrypt = pytest.importorskip("bcrypt")
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    assert status(MonitoringAuthorization("scraper", hashed), encoded("scraper:secret")) == 200
    assert status(MonitoringAuthorization("scraper", hashed), encoded("scraper:wrong")) == 401


def test_health_may_be_left_open() -> None:
    login = MonitoringAuthorization("scraper", "secret", healthz="open")
    assert status(login, "", "/healthz") == 200
    assert status(login, "", "/varz") == 401
    assert status(MonitoringAuthorization("scraper", "secret"), "", "/healthz") == 401
