"""What the values of a configuration's keys may be, and what is done with them. Pure.

A kind reads one entry's value or raises Wrong; a rule says where it goes. `schema` and `accounts` are tables of these.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from .lexer import Position
from .options import CLUSTER_PORT, Options, Url
from .parser import Entry, Node, Tree


@dataclass(frozen=True, slots=True)
class Warning:
    """A line for the user. `strict`: nats-server, too, calls it a warning, which makes `-t` fail."""

    text: str
    strict: bool = False


class Wrong(Exception):
    """A value is not what its key takes; the text says what was expected, or the whole fault."""


Kind = Callable[["Reader", Entry], Any]


@dataclass(slots=True)
class Rule:
    """What to do with a key: `apply(reader, target, entry)`; `names`: the canonical name, then its aliases."""

    names: tuple[str, ...]
    apply: Callable[[Reader, Any, Entry], None]


@dataclass(slots=True)
class Reader:
    """Collects faults and places while a tree is read."""

    options: Options
    errors: list[str] = field(default_factory=list)
    warnings: list[Warning] = field(default_factory=list)

    def fault(self, position: Position, text: str) -> None:
        self.errors.append(f"{position}: {text}")

    def warn(self, position: Position, text: str, strict: bool = False) -> None:
        self.warnings.append(Warning(f"{position}: {text}", strict))

    def block(self, tree: Tree, rules: dict[str, Rule], target: Any, path: str) -> None:
        """Applies the rules of a block; an unknown key is a fault unless a variable used it."""
        for entry in tree.values():
            rule = rules.get(entry.name.lower())
            if rule is None:
                if not entry.used:
                    self.fault(entry.position, f'unknown field "{entry.name}"')
                continue
            try:
                rule.apply(self, target, entry)
            except Wrong as err:
                self.fault(entry.position, str(err))
            else:
                self.options.places[path + rule.names[0]] = entry.position


def mistyped(entry: Entry, expected: str) -> Wrong:
    return Wrong(f'expected {expected} for "{entry.name}", got {entry.node.kind}')


def boolean(reader: Reader, entry: Entry) -> bool:
    if not isinstance(entry.node.value, bool):
        raise mistyped(entry, "a boolean")
    return entry.node.value


def string(reader: Reader, entry: Entry) -> str:
    if not isinstance(entry.node.value, str):
        raise mistyped(entry, "a string")
    return entry.node.value


def integer(reader: Reader, entry: Entry) -> int:
    value = entry.node.value
    if isinstance(value, bool) or not isinstance(value, int):
        raise mistyped(entry, "an integer")
    return value


def or_default(kind: Kind, high: float = 0x7FFFFFFF) -> Kind:
    """0 keeps the default, as in nats-server; what is below 0 or above `high` is wrong."""

    def checked(reader: Reader, entry: Entry) -> Any:
        value = kind(reader, entry)
        if value > high:
            raise Wrong(f'expected at most {high} for "{entry.name}", got {value}')
        if value < 0:
            raise Wrong(f'expected 0 or more for "{entry.name}", got {entry.node.value}')
        return value or None

    return checked


def between(low: int, high: int) -> Kind:
    def kind(reader: Reader, entry: Entry) -> int:
        value = integer(reader, entry)
        if not low <= value <= high:
            raise Wrong(f'expected {low} to {high} for "{entry.name}", got {value}')
        return value

    return kind


def strings(reader: Reader, entry: Entry) -> list[str]:
    value = entry.node.value
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise mistyped(entry, "a string or an array of strings")
    out = []
    for node in value:
        if not isinstance(node.value, str):
            raise Wrong(f'expected strings in "{entry.name}", got {node.kind}')
        out.append(node.value)
    return out


def one_of(*words: str) -> Kind:
    def kind(reader: Reader, entry: Entry) -> str:
        value = string(reader, entry).lower()
        if value not in words:
            raise Wrong(f'expected {" or ".join(words)} for "{entry.name}", got "{value}"')
        return value

    return kind


def map_of(entry: Entry) -> Tree:
    if not isinstance(entry.node.value, dict):
        raise mistyped(entry, "a map")
    return entry.node.value


def size(reader: Reader, entry: Entry) -> int:
    """Bytes: an integer, or a string of digits and one of K, M, G, T (powers of 1024)."""
    value = entry.node.value
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise mistyped(entry, "a size")
    match = re.fullmatch(r"(-?[0-9]{1,15})([KMGT])", value, re.IGNORECASE)
    if match is None:
        raise Wrong(f'expected a size such as 1GB or "1G" for "{entry.name}", got "{value}"')
    return int(match[1]) << (10 * (1 + "kmgt".index(match[2].lower())))


_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
MAX_SECONDS = 9_223_372_036.0
"""nats-server counts int64 nanoseconds."""
_DURATION = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")


def duration_seconds(text: str) -> float | None:
    """Seconds of a duration such as `1h30m`, `250ms` or `-1.5s`; None for any other text."""
    rest = text[1:] if text[:1] in ("+", "-") else text
    if rest == "0":
        return 0.0
    total, at = 0.0, 0
    while at < len(rest):
        match = _DURATION.match(rest, at)
        if match is None:
            return None
        total += float(match[1]) * _UNITS[match[2]]
        at = match.end()
    if at == 0 or total > MAX_SECONDS:
        return None
    return -total if text[:1] == "-" else total


def duration(reader: Reader, entry: Entry) -> float:
    """Seconds. A bare number is seconds and deserves a warning; `2m`, to the language 2 000 000, is two minutes."""
    value = entry.node.value
    if isinstance(value, int) and not isinstance(value, bool):
        written = entry.node.text
        advice = f"{entry.name} should be converted to a duration"
        if re.fullmatch(r"-?[0-9]+m", written):
            advice += f': {written} is read as minutes, write "{written}"'
            seconds = value / 1e6 * 60
        else:
            seconds = float(value)
        if abs(seconds) > MAX_SECONDS:
            raise Wrong(f'expected a duration such as "2m" for "{entry.name}", got {value}')
        reader.warn(entry.position, f'invalid use of field "{entry.name}": {advice}', strict=True)
        return seconds
    return strict_duration(reader, entry)


def strict_duration(reader: Reader, entry: Entry) -> float:
    value = entry.node.value
    if not isinstance(value, str):
        raise mistyped(entry, 'a duration such as "2m"')
    seconds = duration_seconds(value)
    if seconds is None:
        raise Wrong(f'expected a duration such as "2m" for "{entry.name}", got "{value}"')
    return seconds


def timeout(reader: Reader, entry: Entry) -> float:
    value = entry.node.value
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_SECONDS:
        return float(value)
    return strict_duration(reader, entry)


def sync_interval(reader: Reader, entry: Entry) -> float | str:
    value = entry.node.value
    if isinstance(value, str) and value.lower() == "always":
        return "always"
    return duration(reader, entry)


def name_without_spaces(what: str) -> Kind:
    def kind(reader: Reader, entry: Entry) -> str:
        value = string(reader, entry)
        if " " in value:
            raise Wrong(f"{what} name cannot contain spaces")
        return value

    return kind


def parse_listen(text: str) -> tuple[str, int]:
    """Host and port of `host:port`. Raises: ValueError with a message."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or ("]" in port) or (not bracketed and (":" in host or "[" in host or "]" in host)):
        raise ValueError(f'could not parse address string "{text}"')
    if not re.fullmatch(r"[+-]?[0-9]{1,10}", port):
        raise ValueError(f'could not parse port "{port}"')
    number = int(port)
    if not -1 <= number <= 65535:
        raise ValueError(f"expected a port from -1 to 65535, got {number}")
    return host[1:-1] if bracketed else host, number


def listen(reader: Reader, entry: Entry) -> tuple[str, int]:
    """(host, port); host '' keeps the default."""
    value = entry.node.value
    if isinstance(value, str):
        try:
            return parse_listen(value)
        except ValueError as err:
            raise Wrong(str(err)) from None
    if isinstance(value, bool) or not isinstance(value, int):
        raise mistyped(entry, "a port or host:port")
    return "", port(reader, entry)


port = between(-1, 65535)


def parse_route(text: str) -> Url:
    """A route's URL. Without a port it is 6222; a URL without a scheme is taken as host:port. Raises: ValueError."""
    try:
        parts = urlsplit(text if "://" in text else f"nats-route://{text.lstrip('/')}")
        number = parts.port
        host = parts.hostname or ""
    except ValueError:
        host, number = "", None
    if not host or any(c.isspace() or not c.isprintable() for c in text) or (":" in host and "[" not in text):
        raise ValueError(f"expected a route such as nats-route://host:6222, got {_redacted(text)!r}")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return Url(host, CLUSTER_PORT if number is None else number, user, password, parts.scheme)


def _redacted(text: str) -> str:
    """The URL without what is before the `@`: messages must not show passwords."""
    head, sep, tail = text.rpartition("@")
    return f"{head.partition('://')[0]}://***@{tail}" if sep and "://" in head else "***@" + tail if sep else text


# ---- actions ----


def sets(attribute: str, kind: Kind, *aliases: str, name: str = "") -> Rule:
    def apply(reader: Reader, target: Any, entry: Entry) -> None:
        value = kind(reader, entry)
        if value is not None:
            setattr(target, attribute, value)

    return Rule((name or attribute, *aliases), apply)


def listens(host: str, port: str, name: str = "listen") -> Rule:
    def apply(reader: Reader, target: Any, entry: Entry) -> None:
        h, p = listen(reader, entry)
        if h:
            setattr(target, host, h)
        setattr(target, port, p)

    return Rule((name,), apply)


def later(*names: str, kind: Kind | None = None) -> Rule:
    """A key that is tolerated: a warning says that it does nothing, unless it only says what holds anyway."""

    def apply(reader: Reader, target: Any, entry: Entry) -> None:
        if kind is not None:
            kind(reader, entry)
        if entry.node.value is not False:
            reader.warn(entry.position, f'"{entry.name}" is not supported yet and has no effect')

    return Rule(names, apply)


def later_block(known: str, *names: str) -> Rule:
    """A tolerated block whose keys are still checked for being known."""
    keys = frozenset(known.split())

    def apply(reader: Reader, target: Any, entry: Entry) -> None:
        for inner in map_of(entry).values():
            if inner.name.lower() not in keys and not inner.used:
                reader.fault(inner.position, f'unknown field "{inner.name}"')
        reader.warn(entry.position, f'"{entry.name}" is not supported yet and has no effect')

    return Rule(names, apply)


def refused(*names: str, allow: Callable[[Node], bool] = lambda node: node.value is False) -> Rule:
    """A key whose loss would open the server up or lose data: it stops the start, unless its value asks for nothing."""

    def apply(reader: Reader, target: Any, entry: Entry) -> None:
        if not allow(entry.node):
            raise Wrong(f'"{entry.name}" is not supported yet')

    return Rule(names, apply)


def table(rules: Iterable[Rule]) -> dict[str, Rule]:
    found: dict[str, Rule] = {}
    for rule in rules:
        for name in rule.names:
            assert name not in found, name
            found[name] = rule
    return found
