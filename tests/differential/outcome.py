"""What a session came to: the bytes each connection got, made comparable."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

CLIENT_ID = re.compile(rb'"client_id":\d+')
MASKED = frozenset(
    {
        "server_id",
        "server_name",
        "version",
        "jscore_version",
        "git_commit",
        "go",
        "host",
        "port",
        "client_id",
        "api_lvl",
        "xkey",
    }
)
"""Fields of INFO that say who the server is, or which of its makers' features it has."""
PINGS = re.compile(rb"PING\r\n")
_infos: dict[bytes, bytes] = {}


@dataclass(slots=True)
class Outcome:
    """got: per connection all bytes received; left_open: it was still there when it had been watched for a while."""

    got: list[bytes]
    left_open: list[bool]
    late: bool = False
    """Given up: the server neither answered nor closed."""


def info(line: bytes) -> bytes:
    """An INFO line without what differs between any two servers."""
    key = CLIENT_ID.sub(b"", line)
    known = _infos.get(key)
    if known is None:
        try:
            fields = json.loads(line[5:])
        except ValueError:
            return line
        kept = {name: value for name, value in sorted(fields.items()) if name not in MASKED}
        known = b"INFO " + json.dumps(kept).encode()
        if len(_infos) < 10_000:
            _infos[key] = known
    return known


def parts(data: bytes) -> list[bytes]:
    """The operations a client saw, payloads in one piece with their line."""
    out = []
    at = 0
    while at < len(data):
        end = data.find(b"\r\n", at)
        if end < 0:
            out.append(data[at:])
            break
        line = data[at:end]
        end += 2
        if line.startswith((b"MSG ", b"HMSG ")):
            size = line.rsplit(b" ", 1)[-1]
            if size.isdigit() and len(size) < 10:
                end += int(size) + 2
        out.append(info(line) if line.startswith(b"INFO ") else data[at:end])
        at = end
    return out


TWICE = b"-ERR 'Invalid Publish Subject'\r\n"
"""The peer says it once more when a publish comes in more than one read."""
NOBODY = re.compile(rb"^(HMSG [^ ]+ )[^ ]+ (?=\d+ \d+\r\nNATS/1\.0 503\r\nNats-Subject: )")
"""No responders: told to any subscription that takes the reply."""
QUEUED = re.compile(rb"^(H?MSG [^ ]+ )q([a-z])\d_\d+ ")
"""A subject may hold any byte but those that end it: a form feed, too."""
DELIVERY = re.compile(rb"^H?MSG ([^ ]+) ([^ ]+) (.*)$", re.DOTALL)


def in_order(seen: list[bytes]) -> list[bytes]:
    """Copies of one message for several subscriptions of a connection come in any order."""
    out: list[bytes] = []
    run: list[bytes] = []
    of: tuple[bytes, bytes] | None = None
    for part in seen:
        found = DELIVERY.match(part)
        what = (found[1], found[3]) if found else None
        if what is None or what != of:
            out += sorted(run)
            run = []
        of = what
        if what is None:
            out.append(part)
        else:
            run.append(part)
    return out + sorted(run)


def canonical(outcome: Outcome) -> tuple[object, ...]:
    """Equal for equal behaviour: which member of a queue group took a message is the server's choice."""
    pool: list[bytes] = []
    kept: list[tuple[bytes, ...]] = []
    for data in outcome.got:
        mine: list[bytes] = []
        for part in parts(data):
            queued = QUEUED.match(part)
            if queued:
                pool.append(QUEUED.sub(rb"\1q\2 ", part))
            elif NOBODY.match(part):
                mine.append(NOBODY.sub(rb"\1", part))
            elif not (part == TWICE and mine and mine[-1] == TWICE):
                mine.append(part)
        kept.append(tuple(in_order(mine)))
    return (tuple(kept), tuple(sorted(pool)), tuple(outcome.left_open), outcome.late)


def same(a: Outcome, b: Outcome) -> bool:
    if a.left_open == b.left_open and a.late == b.late and not a.late:
        for x, y in zip(a.got, b.got, strict=True):
            cut_x, cut_y = x.find(b"\r\n"), y.find(b"\r\n")
            if x[cut_x:] != y[cut_y:] or info(x[:cut_x]) != info(y[:cut_y]):
                break
        else:
            return True
    return canonical(a) == canonical(b)
