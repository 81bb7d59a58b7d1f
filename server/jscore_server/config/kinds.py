"""How a key is read: the kinds of values, the rules of a block, and the reader that collects what is wrong. Pure.

A rule may find a fault (`Wrong`, `Reader.fault`: nats-server's `-t` calls the file bad), give a warning, or note a
refusal (`Reader.refuse`: the file is good, but this server must not start with it, since leaving the key out would open
it up or lose data). All of a file's are collected.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from .lexer import SUFFIXES, Position
from .options import Options
from .parser import Entry, Node, Tree

__all__ = [
    "Kind",
    "Reader",
    "Rule",
    "Warning",
    "Wrong",
    "any_map",
    "anything",
    "array_of_strings",
    "at_least",
    "between",
    "boolean",
    "checked",
    "collects",
    "duration",
    "duration_seconds",
    "each",
    "either",
    "forbidden",
    "integer",
    "later",
    "listen",
    "listens",
    "map_of",
    "maps",
    "mistyped",
    "name_without_spaces",
    "number",
    "one_of",
    "or_default",
    "parse_listen",
    "port",
    "positive",
    "refused",
    "sets",
    "size",
    "strict_duration",
    "string",
    "strings",
    "table",
    "timeout",
]  # fmt: skip


class Warning(msgspec.Struct, frozen=True):
    """A line for the user. `strict`: nats-server, too, calls it a warning, which makes `-t` fail."""

    text: str
    strict: bool = False


class Wrong(Exception):
    """A value is not what its key takes; the text says what was expected, or the whole fault."""


ADVISED_FAULTS = 50
Kind = Callable[["Reader", Entry], Any]


class Rule(msgspec.Struct):
    """What to do with a key: `apply(reader, target, entry)`; `names`: the canonical name, then its aliases."""

    names: tuple[str, ...]
    apply: Callable[[Reader, Any, Entry], None]


class Reader(msgspec.Struct):
    """Collects faults, warnings, refusals and places while a tree is read."""

    options: Options
    errors: list[str] = msgspec.field(default_factory=list)
    warnings: list[Warning] = msgspec.field(default_factory=list)

    def fault(self, position: Position, text: str) -> None:
        """The file is bad."""
        self.errors.append(f"{position}: {text}")

    def warn(self, position: Position, text: str, strict: bool = False) -> None:
        """Worth a line; `strict`: nats-server, too, warns, which makes `-t` fail."""
        self.warnings.append(Warning(f"{position}: {text}", strict))

    def refuse(self, position: Position, text: str) -> None:
        """The file is good, but no server may start with it."""
        self.options.refusals.append(f"{position}: {text}")

    def lacks(self, entry: Entry) -> None:
        """Refuses a start: the key belongs to a feature that is missing here."""
        self.refuse(entry.position, f'"{entry.name}" is not supported yet')

    def unknown(self, entry: Entry, known: Iterable[str]) -> None:
        """A key that no rule knows: a fault, with the likely word where one is close."""
        name = entry.name.lower()[:64]
        # The search costs as much as reading some thousand keys: the first faults are helped with.
        import difflib  # only a file with a fault needs it

        near = difflib.get_close_matches(name, known, 3, 0.7) if len(self.errors) < ADVISED_FAULTS else []
        # Of words equally close, the one with the same letters was meant.
        near.sort(key=lambda word: sorted(word) != sorted(name))
        advice = f', did you mean "{near[0]}"?' if near else ""
        self.fault(entry.position, f'unknown field "{entry.name}"{advice}')

    def block(self, tree: Tree, rules: dict[str, Rule], target: Any, path: str, *, exact: bool = False) -> None:
        """Applies the rules of a block. An unknown key is a fault, unless it was a variable and not `exact`."""
        for entry in tree.values():
            rule = rules.get(entry.name.lower())
            if rule is None:
                if exact or not entry.used:
                    self.unknown(entry, rules)
                continue
            try:
                rule.apply(self, target, entry)
            except Wrong as err:
                self.fault(entry.position, str(err))
            else:
                self.options.places[path + rule.names[0]] = entry.position


# ---- kinds ----


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
    fits(reader, entry)
    return value


def fits(reader: Reader, entry: Entry) -> None:
    """Forbids a start with an integer whose suffix took it out of 64 bits; nats-server goes on with what is left."""
    match = re.fullmatch(r"(-?[0-9]+)([A-Za-z]+)", entry.node.text)
    if match and not -_INT64 <= int(match[1]) * SUFFIXES.get(match[2].lower(), 1) < _INT64:
        reader.refuse(entry.position, f'expected an integer of 64 bits for "{entry.name}", got {entry.node.text}')


def at_least(low: int, kind: Kind = integer) -> Kind:
    """What is below `low` forbids a start, though nats-server's check lets it pass; None keeps the default."""

    def checked(reader: Reader, entry: Entry) -> Any:
        value = kind(reader, entry)
        if value < low:
            reader.refuse(entry.position, f'expected {low} or more for "{entry.name}", got {entry.node.value}')
            return None
        return value

    return checked


def or_default(kind: Kind, high: float = 0x7FFFFFFF) -> Kind:
    """0 keeps the default, as in nats-server; what is below 0 forbids a start, what is above `high` is wrong."""
    low = at_least(0, kind)

    def checked(reader: Reader, entry: Entry) -> Any:
        value = low(reader, entry)
        if value is not None and value > high:
            raise Wrong(f'expected at most {high} for "{entry.name}", got {value}')
        return value or None

    return checked


def between(low: int, high: int) -> Kind:
    def kind(reader: Reader, entry: Entry) -> int:
        value = integer(reader, entry)
        if not low <= value <= high:
            raise Wrong(f'expected {low} to {high} for "{entry.name}", got {value}')
        return value

    return kind


def port(reader: Reader, entry: Entry) -> int:
    """A port; one that cannot be forbids a start, though nats-server's check lets it pass."""
    value = integer(reader, entry)
    if not -1 <= value <= 65535:
        reader.refuse(entry.position, f'expected -1 to 65535 for "{entry.name}", got {value}')
        return 0
    return value


def positive(kind: Kind = integer) -> Kind:
    """0 or more; nats-server's check looks, too."""

    def whole(reader: Reader, entry: Entry) -> Any:
        value = kind(reader, entry)
        if value < 0:
            raise Wrong(f'expected 0 or more for "{entry.name}", got {entry.node.value}')
        return value

    return whole


def number(reader: Reader, entry: Entry) -> float:
    """An integer or a decimal number."""
    value = entry.node.value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise mistyped(entry, "a number")
    return float(value)


def anything(reader: Reader, entry: Entry) -> Any:
    return entry.node.value


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


def array_of_strings(reader: Reader, entry: Entry) -> list[str]:
    """Strings where one alone is none."""
    if not isinstance(entry.node.value, list):
        raise mistyped(entry, "an array of strings")
    return strings(reader, entry)


def one_of(*words: str, any_case: bool = True) -> Kind:
    """One of some words."""

    def kind(reader: Reader, entry: Entry) -> str:
        value = string(reader, entry)
        value = value.lower() if any_case else value
        if value not in words:
            raise Wrong(f'expected {" or ".join(words)} for "{entry.name}", got "{value}"')
        return value

    return kind


def map_of(entry: Entry) -> Tree:
    """The entries of a map."""
    if not isinstance(entry.node.value, dict):
        raise mistyped(entry, "a map")
    return entry.node.value


def any_map(reader: Reader, entry: Entry) -> Tree:
    return map_of(entry)


def size(reader: Reader, entry: Entry) -> int:
    """Bytes: an integer, or a string of digits and one of K, M, G, T (powers of 1024)."""
    value = entry.node.value
    if isinstance(value, int) and not isinstance(value, bool):
        fits(reader, entry)
        return value
    if not isinstance(value, str):
        raise mistyped(entry, "a size")
    if value == "":
        return 0
    match = re.fullmatch(r"([+-]?[0-9]{1,19})([KMGT])", value)
    if match is None or not -_INT64 <= int(match[1]) < _INT64:
        raise Wrong(f'expected a size such as 1GB or "1G" for "{entry.name}", got "{value}"')
    found = int(match[1]) << (10 * (1 + "KMGT".index(match[2])))
    if not -_INT64 <= found < _INT64:
        reader.refuse(entry.position, f'expected a size of 64 bits for "{entry.name}", got "{value}"')
        return 0
    return found


_INT64 = 1 << 63
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
NO_PROFILE = "this server has no profile in Go's format; perf and py-spy show what it does"
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
    """Seconds: a number or a duration; one below 0 or beyond 64 bits of nanoseconds forbids a start."""
    value = entry.node.value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return strict_duration(reader, entry)
    if not 0 <= value <= MAX_SECONDS:
        reader.refuse(entry.position, f'expected a duration for "{entry.name}", got {value}')
        return 0.0
    return float(value)


def short_timeout(reader: Reader, entry: Entry) -> float:
    """A timeout that is suspicious above a minute."""
    seconds = timeout(reader, entry)
    if seconds > 60:
        text = f'invalid use of field "{entry.name}": {seconds:g} seconds is high, consider keeping it under 60 seconds'
        reader.warn(entry.position, text, strict=True)
    return seconds


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
    return host[1:-1] if bracketed else host, int(port)


def listen(reader: Reader, entry: Entry) -> tuple[str, int]:
    """(host, port); host '' keeps the default."""
    value = entry.node.value
    if isinstance(value, str):
        try:
            host, wanted = parse_listen(value)
        except ValueError as err:
            raise Wrong(str(err)) from None
        if not -1 <= wanted <= 65535:
            reader.refuse(entry.position, f'expected a port from -1 to 65535 for "{entry.name}", got {wanted}')
            wanted = 0
        return host, wanted
    if isinstance(value, bool) or not isinstance(value, int):
        raise mistyped(entry, "a port or host:port")
    return "", port(reader, entry)


# ---- actions ----


def sets(attribute: str, kind: Kind, *aliases: str, name: str = "") -> Rule:
    def apply(reader: Reader, target: Any, entry: Entry) -> None:
        value = kind(reader, entry)
        if value is not None:
            setattr(target, attribute, value)

    return Rule((name or attribute, *aliases), apply)


def collects(attribute: str, kind: Kind, *aliases: str) -> Rule:
    """A key whose value adds to a list, under whichever of its names it comes."""

    def apply(reader: Reader, target: Any, entry: Entry) -> None:
        getattr(target, attribute).extend(kind(reader, entry))

    return Rule((attribute, *aliases), apply)


def listens(host: str, port: str, name: str = "listen") -> Rule:
    def apply(reader: Reader, target: Any, entry: Entry) -> None:
        h, p = listen(reader, entry)
        if h:
            setattr(target, host, h)
        setattr(target, port, p)

    return Rule((name,), apply)


def later(*names: str, kind: Kind = anything) -> Rule:
    """A key that is checked and has no effect: a warning says so, unless its value is what holds anyway."""

    def apply(reader: Reader, target: Any, entry: Entry) -> None:
        value = kind(reader, entry)
        if value is not False:
            reader.warn(entry.position, f'"{entry.name}" is not supported yet and has no effect')

    return Rule(names, apply)


def _asks_nothing(node: Node) -> bool:
    return node.value is False or node.value in ({}, [])


def refused(*names: str, kind: Kind = anything, allow: Callable[[Node], bool] = _asks_nothing) -> Rule:
    """A key whose loss would open the server up or lose data: no start with it, unless its value asks for nothing."""

    def apply(reader: Reader, target: Any, entry: Entry) -> None:
        kind(reader, entry)
        if not allow(entry.node):
            reader.lacks(entry)

    return Rule(names, apply)


def forbidden(*names: str) -> Rule:
    """A key that a block of another place has: a fault here."""

    def apply(reader: Reader, target: Any, entry: Entry) -> None:
        raise Wrong(f'"{entry.name}" is not allowed here')

    return Rule(names, apply)


def checked(*names: str, kind: Kind = anything) -> Rule:
    """A key of a block that is refused or has no effect as a whole: only its value is looked at."""

    def apply(reader: Reader, target: Any, entry: Entry) -> None:
        kind(reader, entry)

    return Rule(names, apply)


def maps(rules: dict[str, Rule], *, exact: bool = False) -> Kind:
    """A map with these keys; its values are checked, or go into what the rules name."""

    def kind(reader: Reader, entry: Entry) -> None:
        reader.block(map_of(entry), rules, None, "", exact=exact)

    return kind


def each(kind: Kind) -> Kind:
    """An array whose values are all of a kind; faults stand where the values stand."""

    def whole(reader: Reader, entry: Entry) -> list[Any]:
        if not isinstance(entry.node.value, list):
            raise mistyped(entry, "an array")
        found = []
        for node in entry.node.value:
            try:
                found.append(kind(reader, Entry(entry.name, node.position, node)))
            except Wrong as err:
                reader.fault(node.position, str(err))
        return found

    return whole


def either(*kinds: Kind) -> Kind:
    """The first of some kinds that the value is; the last one says what is wrong."""

    def kind(reader: Reader, entry: Entry) -> Any:
        for kind in kinds[:-1]:
            try:
                return kind(reader, entry)
            except Wrong:
                continue
        return kinds[-1](reader, entry)

    return kind


def table(rules: Iterable[Rule]) -> dict[str, Rule]:
    """The rules by each of their names."""
    table: dict[str, Rule] = {}
    for rule in rules:
        for name in rule.names:
            assert name not in table, name
            table[name] = rule
    return table
