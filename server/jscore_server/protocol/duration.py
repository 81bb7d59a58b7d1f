"""Durations as text, the way that clients and tools of the peer read them. Pure."""

from __future__ import annotations

__all__ = ["go_duration"]


def go_duration(ns: int) -> str:
    """A duration as Go prints it: `1h0m0s`, `2m0s`, `1.5s`, `100ms`."""
    if ns == 0:
        return "0s"
    sign, ns = ("-", -ns) if ns < 0 else ("", ns)
    for unit, size in (("ns", 1), ("µs", 1000), ("ms", 1_000_000)):
        if ns < size * 1000:
            return f"{sign}{_decimal(ns, size)}{unit}"
    minutes, rest = divmod(ns, 60_000_000_000)
    seconds = _decimal(rest, 1_000_000_000) + "s"
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{sign}{hours}h{minutes}m{seconds}"
    return f"{sign}{minutes}m{seconds}" if minutes else sign + seconds


def _decimal(value: int, unit: int) -> str:
    whole, part = divmod(value, unit)
    if not part:
        return str(whole)
    return f"{whole}.{str(unit + part)[1:].rstrip('0')}"
