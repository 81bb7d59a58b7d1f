"""The listener reads plain requests, bounds strangers and never dies of one."""

from __future__ import annotations

import asyncio
import socket

import pytest
from jscore_server.monitoring.http import Answer, BadRequest, Listener, Request, parse_head


def test_a_request_line_with_a_query() -> None:
    request = parse_head(b"GET /conn%7a?limit=3&limit=4&subs= HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (request.method, request.path) == ("GET", "/connz")
    assert request.query == {"limit": "3", "subs": ""}
    assert not request.close


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nConnection: Close\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_what_cannot_be_followed_by_another_request_closes(head: bytes) -> None:
    assert parse_head(head).close


@pytest.mark.parametrize(
    "head",
    [
        b"\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET http://x/ HTTP/1.1\r\n\r\n",
        b"G\xffT / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n folded: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /?" + b"a=1&" * 100 + b" HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused(head: bytes) -> None:
    with pytest.raises(BadRequest):
        parse_head(head)


def serve(talk: bytes, answer: Answer | Exception) -> tuple[bytes, list[str]]:
    """What one connection gets back for `talk`, until closed, and what went to the log."""
    said: list[str] = []

    async def handle(request: Request) -> Answer:
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def work() -> bytes:
        sock = socket.create_server(("127.0.0.1", 0))
        sock.setblocking(False)
        port = sock.getsockname()[1]
        listener = Listener(sock, handle, said.append)
        listener.start()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(talk)
        got = await reader.read()
        writer.close()
        listener.close()
        return got

    return asyncio.run(asyncio.wait_for(work(), 20)), said


def test_requests_follow_one_another_on_a_connection() -> None:
    get = b"GET / HTTP/1.1\r\n\r\n"
    got, _ = serve(get + get + b"HEAD / HTTP/1.0\r\n\r\n", Answer(200, b"{}"))
    assert got.count(b"HTTP/1.1 200 OK\r\n") == 3
    assert got.count(b"\r\n\r\n{}") == 2
    assert b"Connection: close\r\n" in got


def test_noise_gets_an_answer_and_is_dropped() -> None:
    got, said = serve(b"\x00\xff" * 100 + b"\r\n\r\n", Answer(200, b"{}"))
    assert got.startswith(b"HTTP/1.1 400 ")
    assert not said


def test_an_endless_head_is_dropped() -> None:
    got, _ = serve(b"GET / HTTP/1.1\r\nX: " + b"a" * 40_000, Answer(200, b"{}"))
    assert got.startswith(b"HTTP/1.1 400 ")


def test_a_failing_page_is_an_answer_and_a_log_line() -> None:
    got, said = serve(b"GET /varz HTTP/1.0\r\n\r\n", ValueError("oops"))
    assert got.startswith(b"HTTP/1.1 500 ")
    assert said == ["monitoring /varz: ValueError: oops"]
