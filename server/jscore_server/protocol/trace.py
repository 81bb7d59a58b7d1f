"""How one protocol operation looks in the log with -V. Pure. Source: the lines nats-server 2.14.5 prints."""

from __future__ import annotations

import re

RECEIVED, SENT, LOST = 0, 1, 2
_ARROWS = ("<<-", "->>")
_SECRETS = re.compile(r'("(?:pass|auth_token|jwt|sig)"\s*:\s*)"(?:[^"\\]|\\.)*"')
_NAMED = {7: "\\a", 8: "\\b", 9: "\\t", 10: "\\n", 11: "\\v", 12: "\\f", 13: "\\r", 34: '\\"', 92: "\\\\"}
_QUOTED = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | _NAMED
# Bytes that are no UTF-8 arrive as lone surrogates.
_QUOTED |= {0xDC00 + byte: f"\\x{byte:02x}" for byte in range(128, 256)}


def traced(direction: int, payload_bytes: int, data: bytes, limit: int = 0) -> str:
    """The text after the connection's name: a line, or a payload of which at most `limit` bytes are shown (0: all).

    `payload_bytes` is 0 for a line. Passwords and tokens are left out.
    """
    if not payload_bytes:
        return f"{_ARROWS[direction]} [{_line(data.decode('utf-8', 'backslashreplace'))}]"
    kept = data[:limit] if limit > 0 else data
    text = kept.decode("utf-8", "surrogateescape").translate(_QUOTED)
    return f'{_ARROWS[direction]} MSG_PAYLOAD: ["{text}"{"..." if payload_bytes > len(kept) else ""}]'


def _line(line: str) -> str:
    if line[:7].upper() in ("CONNECT", "JSLINK "):
        return _SECRETS.sub(r'\1"[REDACTED]"', line)
    if line.startswith("-ERR '"):
        return f"-ERR {line[6:-1]}"
    return "OK" if line == "+OK" else line
