"""The query of a monitoring request, read as nats-server reads it. Pure. Source: monitoring.md section 1."""

from __future__ import annotations

import re

__all__ = ["BadQuery", "boolean", "go_duration", "integer", "uptime"]

_TRUE = {"1", "t", "T", "TRUE", "true", "True"}
_FALSE = {"0", "f", "F", "FALSE", "false", "False", ""}
_UNITS = ((365 * 86_400, "y"), (86_400, "d"), (3600, "h"), (60, "m"))


class BadQuery(Exception):
    """A parameter cannot be read; the text is the body of the 400."""


def boolean(query: dict[str, str], name: str) -> bool:
    """False when absent or empty. Raises: BadQuery."""
    text = query.get(name, "")
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise BadQuery(f"Error decoding boolean for '{name}': strconv.ParseBool: parsing {_quoted(text)}: invalid syntax")


def integer(query: dict[str, str], name: str) -> int:
    """0 when absent or empty. Raises: BadQuery."""
    text = query.get(name, "")
    if not text:
        return 0
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text, re.ASCII):
        raise BadQuery(f"Error decoding int for '{name}': strconv.Atoi: parsing {_quoted(text)}: invalid syntax")
    return int(text)


def _quoted(text: str) -> str:
    escaped = "".join(c if c.isprintable() and c not in '"\\' else c.encode("unicode_escape").decode() for c in text)
    return f'"{escaped}"'


def uptime(seconds: float) -> str:
    """`1y2d3h4m5s` without leading zero units."""
    rest = max(0, int(seconds))
    text = ""
    for size, unit in _UNITS:
        count, rest = divmod(rest, size)
        if count or text:
            text += f"{count}{unit}"
    return f"{text}{rest}s"


def go_duration(ns: int) -> str:
    """A duration under a minute as Go prints it: `1.5ms`, `240µs`, `3s`."""
    for size, unit in ((1_000_000_000, "s"), (1_000_000, "ms"), (1000, "µs")):
        if ns >= size:
            whole, part = divmod(ns, size)
            decimals = f"{part:0{len(str(size)) - 1}d}".rstrip("0")
            return f"{whole}.{decimals}{unit}" if decimals else f"{whole}{unit}"
    return f"{ns}ns" if ns else "0s"
