"""A small HTTP/1.1 listener for monitoring: any method is a GET, bodies are not read, strangers are bounded.

Source: monitoring.md section 1.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote

__all__ = ["Answer", "BadRequest", "Listener", "Request", "parse_head"]

HEAD_MAX = 16 << 10
HEAD_TIMEOUT_S = 5.0
IDLE_TIMEOUT_S = 60.0
CONNECTIONS_MAX = 128
QUERY_FIELDS_MAX = 64
TEXT = "text/plain; charset=utf-8"
_STATUS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class BadRequest(Exception):
    """The bytes are no HTTP request that is served here."""


@dataclass(frozen=True)
class Request:
    """`path` decoded; `query` the first value of each name; `close`: the connection ends after the answer.

    `authorization` is the header of that name, as it came.
    """

    method: str
    path: str
    query: dict[str, str]
    close: bool
    authorization: str = field(default="", repr=False)


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    content_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)


def parse_head(head: bytes) -> Request:
    """The request line and header fields, up to and with the empty line. Raises: BadRequest."""
    try:
        lines = head.decode("latin-1").split("\r\n")
        method, target, version = lines[0].split(" ")
    except ValueError:
        raise BadRequest("malformed HTTP request") from None
    if version not in ("HTTP/1.0", "HTTP/1.1"):
        raise BadRequest("unsupported protocol version")
    if not method.isascii() or not method.isalpha() or not target.startswith("/"):
        raise BadRequest("malformed HTTP request")
    close = version == "HTTP/1.0"
    authorization = ""
    for line in lines[1:]:
        if not line:
            break
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise BadRequest("malformed HTTP header")
        name, value = name.lower(), value.strip()
        if name == "authorization":
            authorization = value
        elif name == "connection" and value.lower() == "close":
            close = True
        elif name == "transfer-encoding" or (name == "content-length" and value != "0"):
            close = True  # its body is not read, so nothing after it can be understood
    path, _, text = target.partition("?")
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX)
    except ValueError:
        raise BadRequest("too many query parameters") from None
    query: dict[str, str] = {}
    for name, value in pairs:
        query.setdefault(name, value)
    return Request(method, unquote(path), query, close, authorization)


def render(answer: Answer, *, close: bool, head_only: bool) -> bytes:
    """The bytes of an answer."""
    fields = {
        **answer.headers,
        "Content-Type": answer.content_type,
        "Date": email.utils.formatdate(usegmt=True),
        "Content-Length": str(len(answer.body)),
    }
    if close:
        fields["Connection"] = "close"
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    head = f"HTTP/1.1 {answer.status} {_STATUS[answer.status]}\r\n{lines}\r\n".encode("latin-1")
    return head if head_only else head + answer.body


class Listener:
    """Serves `handle` on a listening socket until `close`."""

    def __init__(
        self,
        sock: socket.socket,
        handle: Callable[[Request], Awaitable[Answer]],
        log_error: Callable[[str], None],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.sock = sock
        self._tls = tls
        self._handle = handle
        self._log_error = log_error
        self._server: asyncio.Server | None = None
        self._starting: asyncio.Task[None] | None = None
        self._open: set[asyncio.StreamWriter] = set()

    def start(self) -> None:
        """Begins to accept. The socket listens already, so nobody who connects before is turned away."""
        self._starting = asyncio.get_running_loop().create_task(self._start())

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._serve, sock=self.sock, limit=HEAD_MAX, ssl=self._tls)

    def close(self) -> None:
        if self._starting is not None:
            self._starting.cancel()
        if self._server is not None:
            self._server.close()
        else:
            self.sock.close()
        for writer in list(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= CONNECTIONS_MAX:
            writer.transport.abort()
            return
        self._open.add(writer)
        try:
            await self._converse(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # the other side left or dawdled: nothing to tell it
        finally:
            self._open.discard(writer)
            with contextlib.suppress(OSError):
                writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        patience = HEAD_TIMEOUT_S
        while True:
            try:
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), patience)
                request = parse_head(head)
            except asyncio.LimitOverrunError:
                await self._refuse(writer, "request header too large")
                return
            except BadRequest as err:
                await self._refuse(writer, str(err))
                return
            answer = await self._answer(request)
            writer.write(render(answer, close=request.close, head_only=request.method == "HEAD"))
            await asyncio.wait_for(writer.drain(), IDLE_TIMEOUT_S)
            if request.close:
                return
            patience = IDLE_TIMEOUT_S

    async def _refuse(self, writer: asyncio.StreamWriter, text: str) -> None:
        writer.write(render(Answer(400, f"400 Bad Request: {text}".encode(), TEXT), close=True, head_only=False))
        await asyncio.wait_for(writer.drain(), HEAD_TIMEOUT_S)

    async def _answer(self, request: Request) -> Answer:
        try:
            return await self._handle(request)
        except Exception as err:
            # The edge to strangers: a mistake of ours in one page is an answer and a log line, not the daemon's end.
            self._log_error(f"monitoring {request.path}: {type(err).__name__}: {err}")
            return Answer(500, b"internal error", TEXT)
