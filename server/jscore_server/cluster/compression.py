"""What two servers make of each other's compression mode. Pure. Source: cluster-protocol.md 1.1."""

from __future__ import annotations

from jscore_server.config.compression import AUTO, LEVELS, MODES, NOT_SUPPORTED, OFF
from jscore_server.protocol.connect import Refused

__all__ = ["agreed", "compresses", "first_level"]

SAID = frozenset({*MODES.values(), LEVELS[0]})
FAST = LEVELS[1]


def compresses(mode: str) -> bool:
    return mode.startswith("s2_")


def agreed(own: str, said: object) -> str:
    """The mode this end uses on the connection; `said`: what the other's INFO has. Raises Refused.

    Both ends come to the same answer on whether there is compression. How hard each works for it is its own matter.
    """
    theirs = said or NOT_SUPPORTED
    if not isinstance(theirs, str) or theirs not in SAID:
        raise Refused("Protocol Violation", f'unsupported route compression mode "{str(said)[:64]}"')
    if NOT_SUPPORTED in (own, theirs):
        return NOT_SUPPORTED
    if OFF in (own, theirs):
        return OFF
    if compresses(own):
        return own
    if compresses(theirs):
        return FAST if theirs == AUTO else theirs
    return OFF


def first_level(mode: str) -> int:
    """The data plane's level for a mode, before anything is known of the round-trip time."""
    return LEVELS.index(mode) if mode in LEVELS else LEVELS.index(FAST)
