"""Who may read the monitoring port, where the configuration says that not everybody may."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable

from jscore_server.config.options import MonitoringAuthorization
from jscore_server.monitoring.http import TEXT, Answer, Request
from jscore_server.passwords import Passwords, same

__all__ = ["Gate", "basic"]

REFUSED = Answer(401, b"401 Unauthorized\n", TEXT, {"WWW-Authenticate": 'Basic realm="monitoring", charset="UTF-8"'})
CREDENTIALS_MAX = 1024


class Gate:
    """Stands before the pages. `wanted` is asked for with every request, so that a reload counts at once."""

    def __init__(
        self,
        wanted: Callable[[], MonitoringAuthorization],
        passwords: Passwords,
        pages: Callable[[Request], Awaitable[Answer]],
        open_path: Callable[[], str],
    ) -> None:
        self._wanted = wanted
        self._passwords = passwords
        self._pages = pages
        self._open_path = open_path

    async def handle(self, request: Request) -> Answer:
        wanted = self._wanted()
        if wanted.required and not (wanted.healthz == "open" and request.path == self._open_path()):
            if not await self._may(wanted, request.authorization):
                return REFUSED
        return await self._pages(request)

    async def _may(self, wanted: MonitoringAuthorization, shown: str) -> bool:
        scheme, _, text = shown.partition(" ")
        text = text.strip()
        if len(text) > CREDENTIALS_MAX:
            return False
        if scheme.lower() == "bearer" and wanted.token:
            return same(text, wanted.token)
        if scheme.lower() != "basic" or not wanted.user:
            return False
        given = basic(text)
        if given is None:
            return False
        user, password = given
        known = same(user, wanted.user)
        # The password is looked at for a stranger too: the time does not tell which of the two was wrong.
        return await self._check(password, wanted.password) and known

    async def _check(self, given: str, wanted: str) -> bool:
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def done(right: bool) -> None:
            if not future.done():
                future.set_result(right)

        stop = self._passwords.check("monitoring", given, wanted, done)
        try:
            return await future
        finally:
            if stop is not None and not future.done():
                stop()


def basic(text: str) -> tuple[str, str] | None:
    """User and password of the Basic scheme; None when it is none. Source: RFC 7617."""
    try:
        user, colon, password = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return (user, password) if colon else None
