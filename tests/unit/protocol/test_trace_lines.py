"""What -V writes about one operation."""

from __future__ import annotations

import pytest
from jscore_server.protocol.trace import RECEIVED, SENT, traced


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (b"PUB $JS.API.INFO in.box 0", "[PUB $JS.API.INFO in.box 0]"),
        (b"-ERR 'Invalid Subject'", "[-ERR Invalid Subject]"),
        (b"+OK", "[OK]"),
        (b'CONNECT {"user":"u","pass":"a\\"b","x":1}', '[CONNECT {"user":"u","pass":"[REDACTED]","x":1}]'),
        (b'JSLINK {"pass": "s"}', '[JSLINK {"pass": "[REDACTED]"}]'),
        (b"PUB \xff 0", "[PUB \\xff 0]"),
    ],
)
def test_a_line_is_shown_in_brackets_without_secrets(line: bytes, shown: str) -> None:
    assert traced(RECEIVED, 0, line) == f"<<- {shown}"


@pytest.mark.parametrize(
    ("payload", "limit", "shown"),
    [
        (b"hello", 0, '["hello"]'),
        (b"NATS/1.0\r\n\r\nhello", 0, '["NATS/1.0\\r\\n\\r\\nhello"]'),
        (b'say "x\\y"', 0, '["say \\"x\\\\y\\""]'),
        (b"\x00\xff\xc3\xa9", 0, '["\\x00\\xff\u00e9"]'),
        (b"hello", 2, '["he"...]'),
    ],
)
def test_a_payload_is_one_quoted_line(payload: bytes, limit: int, shown: str) -> None:
    assert traced(SENT, len(payload), payload, limit) == f"->> MSG_PAYLOAD: {shown}"
