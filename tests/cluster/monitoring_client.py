"""What tests of monitoring ask with: HTTP, and requests that several servers may answer."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
from typing import Any

import nats

SYSTEM: dict[str, Any] = {"user": "sys", "password": "sys"}


def get(port: int, path: str, headers: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Status, content type and body."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        client.request("GET", path, headers=headers or {})
        answer = client.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read().decode()
    finally:
        client.close()


def page(port: int, path: str) -> dict[str, Any]:
    """A page that must be there."""
    status, kind, body = get(port, path)
    assert (status, kind) == (200, "application/json"), body
    found = json.loads(body)
    assert isinstance(found, dict)
    return found


def listens(port: int) -> bool:
    """Whether somebody takes connections there."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
        return True
    return False


async def ask(
    client: nats.NATS, subject: str, body: bytes = b"", *, answers: int = 1, seconds: float = 0.5
) -> list[tuple[dict[str, str], Any]]:
    """(headers, JSON or None) of at most `answers` answers; fewer when the time is over."""
    inbox = client.new_inbox()
    got = await client.subscribe(inbox)
    await client.publish(subject, body, reply=inbox)
    found: list[tuple[dict[str, str], Any]] = []
    with contextlib.suppress(nats.errors.TimeoutError, asyncio.TimeoutError):
        while len(found) < answers:
            msg = await got.next_msg(seconds)
            found.append((dict(msg.headers or {}), json.loads(msg.data) if msg.data else None))
    await got.unsubscribe()
    return found
