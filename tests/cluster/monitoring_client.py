"""What tests of monitoring ask with: HTTP, requests that several servers may answer, and three servers."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
from typing import Any

import nats
from harness import Lab, Server, free_ports, wait_for

SYSTEM: dict[str, Any] = {"user": "sys", "password": "sys"}
NAMES = ("n1", "n2", "n3")


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


class Three:
    """Three clustered servers and their monitoring ports."""

    def __init__(self, lab: Lab, extra: str = "", *, cmd: list[str] | None = None, home: str = "") -> None:
        self.http = free_ports(3)
        routes = free_ports(3)
        urls = ", ".join(f"nats-route://127.0.0.1:{port}" for port in routes)
        self.servers: list[Server] = []
        for name, port, route in zip(NAMES, self.http, routes, strict=True):
            text = (
                f"server_name: {name}\nlisten: 127.0.0.1:PORT\nhttp: 127.0.0.1:{port}\n"
                f'jetstream {{ store_dir: "HOME/store" }}\nserver_tags: ["name:{name}"]\n'
                f"cluster {{ name: C, listen: 127.0.0.1:{route}, routes: [{urls}] }}\n{extra}"
            )
            server = lab.server(home + name, text, route_port=route, cmd=cmd)
            server.start()
            self.servers.append(server)

    @property
    def url(self) -> str:
        return self.servers[0].url

    def wait(self) -> None:
        """Until each has routes to the others and a meta leader."""
        for port in self.http:
            wait_for(lambda port=port: listens(port), 20, "a monitoring port")
            wait_for(
                lambda port=port: len({r["remote_name"] for r in page(port, "/routez")["routes"]}) == 2, 20, "routes"
            )
            wait_for(lambda port=port: get(port, "/healthz")[0] == 200, 30, "health")
