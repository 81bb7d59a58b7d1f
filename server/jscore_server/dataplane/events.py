"""Numbers of the events that C hands to Python.

What each carries is said at the enums of csrc/wire/jsc_plane.h and csrc/stream/jsc_stream.h.
"""

from __future__ import annotations

from typing import Final

EV_CONNECT: Final = 1
EV_INFO: Final = 2
EV_LINK: Final = 3
EV_CLOSED: Final = 4
EV_ERROR: Final = 5
EV_FRAME: Final = 7
EV_PONG: Final = 8
EV_APPENDED: Final = 9
EV_DURABLE: Final = 10
EV_APPLY: Final = 11
EV_FAILED: Final = 12
EV_TRACE: Final = 13
EV_TLS: Final = 14
EV_DENIED: Final = 15
EV_HTTP: Final = 16
EV_BROKEN: Final = 17
EV_PROXY: Final = 18
EV_TRACED: Final = 19
EV_EXPIRED: Final = 20
EV_FULL: Final = 21
EV_QUOTA: Final = 22
EV_JUDGED: Final = 24
EV_ROOM: Final = 25

DENIED_PUBLISH: Final = 0
DENIED_SUBSCRIBE: Final = 1
DENIED_REPLY: Final = 2
DENIED_MAX_SUBS: Final = 3

TRACE_NO_ECHO: Final = 1
TRACE_DENIED: Final = 2
TRACE_CLOSED: Final = 3
TRACE_SLOW: Final = 4
TRACE_UNTRACED: Final = 5
TRACE_UNTOLD: Final = 6
