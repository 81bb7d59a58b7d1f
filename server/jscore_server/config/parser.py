"""The tree of a configuration file: maps, arrays, variables, includes, its digest. Pure: files arrive through `read`.

Source: the language as nats-server v2.14.5 reads it. Where that one would overflow its stack (deep nesting, a file that
includes itself, values that refer to themselves), this parser raises a ConfigError.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from pathlib import PurePosixPath

import msgspec

from .lexer import ConfigError, Lexer, Position, Scalar, Variable

__all__ = ["Entry", "Node", "Tree", "digest", "parse"]

MAX_DEPTH = 64
"""Maps and arrays within each other; nothing real comes near it, and Python's own stack bound is far above."""
MAX_INCLUDES = 16
"""Files including files, and environment variables naming others."""
MAX_VALUES = 1_000_000
"""Values in the whole tree with every variable written out: a bound on what a few lines of variables can grow to."""


class Entry(msgspec.Struct):
    """A key of a map with its value. `used`: a variable referred to it, so an unknown key is no mistake."""

    name: str
    position: Position
    node: Node
    used: bool = False


Tree = dict[str, Entry]


class Node(msgspec.Struct):
    """A value and where it stands. `text`: how a number was written (`2m`), else ''. `size`: values in it, or 1."""

    value: Scalar | list[Node] | Tree
    position: Position
    text: str = ""
    size: int = 1

    @property
    def kind(self) -> str:
        """The kind of value, as a message names it."""
        match self.value:
            case bool():
                return "a boolean"
            case int():
                return "an integer"
            case float():
                return "a decimal number"
            case str():
                return "a string"
            case datetime():
                return "a date"
            case list():
                return "an array"
            case _:
                return "a map"


def parse(text: str, file: str, *, read: Callable[[str], str], environ: Mapping[str, str]) -> Tree:
    """The tree of a file's text.

    `read(path)` returns the text of an included file and raises OSError; `environ` has variables that no key defines.
    Raises: ConfigError at the first fault, with its place.
    """
    return _Parser(text, file, _Shared(read, environ), frozenset(), 0, 0).file()


class _Shared(msgspec.Struct):
    """What the parsers of a file and of its includes have in common."""

    read: Callable[[str], str]
    environ: Mapping[str, str]
    values: int = 0
    files: int = 0


class _Scope(msgspec.Struct):
    """A map under construction."""

    entries: Tree = msgspec.field(default_factory=dict)


class _Parser:
    def __init__(self, text: str, file: str, shared: _Shared, naming: frozenset[str], level: int, depth: int) -> None:
        self.lex = Lexer(text, file)
        self.file_name = file
        self.shared = shared
        self.naming = naming
        """Environment variables whose text is being parsed: naming one of them again is a cycle."""
        self.level = level
        self.scopes: list[_Scope] = []
        self.depth = depth
        self.opened = 0
        """Braces around the whole file that are not closed yet."""

    def file(self) -> Tree:
        """The whole text: entries, all of them possibly in one pair of braces."""
        lex = self.lex
        scope = _Scope()
        self.scopes.append(scope)
        while True:
            lex.skip_blank()
            c = lex.peek()
            if c == "":
                break
            if c == "{":
                self.opened += 1
                lex.at += 1
            elif c == "}":
                # Closes the whole; one that closes nothing is tolerated, too, where the file ends.
                lex.at += 1
                if self.opened:
                    self.opened -= 1
                    continue
                lex.skip_blank()
                if lex.peek() != "":
                    raise lex.error("expected the end of the file after this '}', which closes nothing", lex.at)
            else:
                self._entry(scope, top=True)
        return scope.entries

    def _entry(self, scope: _Scope, top: bool) -> None:
        lex = self.lex
        start = lex.at
        name, quoted = lex.key()
        if not quoted and name.lower() == "include" and lex.peek() in (" ", "\t", "\n", "\r"):
            self._include(scope)
        else:
            self._separator(name, start, top)
            position = lex.position(start)
            scope.entries[name] = Entry(name, position, self._value(top))
        self._end_of_entry(top)

    def _separator(self, name: str, start: int, top: bool) -> None:
        lex = self.lex
        lex.skip_lines()
        if lex.peek() in ("=", ":"):
            lex.at += 1
            lex.skip_space()
            if top and lex.peek() in ("\n", "\r"):
                raise lex.error(f'expected a value for "{name}" on the same line, got the end of the line')
            if not top:
                lex.skip_lines()
        elif lex.peek() == "":
            raise lex.error(f'expected a value for "{name}", got the end of the file', start)

    def _end_of_entry(self, top: bool = True) -> None:
        lex = self.lex
        self._skip_slashes()
        c = lex.peek()
        if c in (",", ";"):
            lex.at += 1
        elif c == "":
            # A map that the end of the file cuts off is reported at its brace.
            if top and self.opened:
                raise lex.error("expected a '}' for the one around this file, got the end of the file")
        elif c == "}" and top:
            lex.at += 1
            self.opened = max(0, self.opened - 1)
        elif c != "}" and not lex.skip_newline() and not lex.skip_comment():
            ends = "a new line, ',', ';' or a comment" if top else "a new line, ',', ';', '}' or a comment"
            raise lex.error(f"expected {ends} after the value, got {lex.describe()}")

    def _skip_slashes(self) -> None:
        """Skips spaces, and slashes that begin no comment: nats-server overlooks them after a value."""
        lex = self.lex
        lex.skip_space()
        while lex.peek() == "/" and not lex.text.startswith("//", lex.at):
            lex.at += 1
            lex.skip_space()

    def _value(self, top: bool = False, in_array: bool = False) -> Node:
        lex = self.lex
        start = lex.at
        c = lex.peek()
        if c == "[":
            return self._nested(start, self._array)
        if c == "{":
            return self._nested(start, self._map)
        if not top and c in ("", ",", ";", "}", "]"):
            raise lex.error(f"expected a value, got {lex.describe()}")
        value = lex.scalar(in_array)
        if isinstance(value, Variable):
            return self._variable(value.name, start)
        text = lex.text[start : lex.at] if isinstance(value, int) else ""
        return self._count(Node(value, lex.position(start), text), start)

    def _count(self, node: Node, start: int) -> Node:
        self.shared.values += node.size
        if self.shared.values > MAX_VALUES:
            raise self.lex.error(f"expected at most {MAX_VALUES} values in a configuration", start)
        return node

    def _nested(self, start: int, build: Callable[[], list[Node] | Tree]) -> Node:
        if self.depth >= MAX_DEPTH:
            raise self.lex.error(f"expected at most {MAX_DEPTH} arrays and maps within each other", start)
        self.depth += 1
        before = self.shared.values
        self.lex.at += 1
        value = build()
        self.depth -= 1
        return Node(value, self.lex.position(start), size=1 + self.shared.values - before)

    def _array(self) -> list[Node]:
        lex = self.lex
        start = lex.at - 1
        nodes: list[Node] = []
        while True:
            lex.skip_blank()
            if lex.peek() == "]":
                lex.at += 1
                return nodes
            if lex.peek() == "":
                raise lex.error("expected a ']' for this one, got the end of the file", start)
            nodes.append(self._value(in_array=True))
            lex.skip_space()
            c = lex.peek()
            if c == ",":
                lex.at += 1
            elif c == "":
                raise lex.error("expected a ']' for this one, got the end of the file", start)
            elif c != "]" and not lex.skip_newline() and not lex.skip_comment():
                raise lex.error(f"expected ',', a new line or ']' in the array, got {lex.describe()}")

    def _map(self) -> Tree:
        lex = self.lex
        start = lex.at - 1
        scope = _Scope()
        self.scopes.append(scope)
        while True:
            lex.skip_blank()
            c = lex.peek()
            if c == "}":
                lex.at += 1
                break
            if c == "":
                raise lex.error("expected a '}' for this one, got the end of the file", start)
            self._entry(scope, top=False)
        self.scopes.pop()
        return scope.entries

    def _variable(self, name: str, start: int) -> Node:
        for scope in reversed(self.scopes):
            entry = scope.entries.get(name)
            if entry is not None:
                entry.used = True
                node = entry.node
                copy = self._count(Node(node.value, self.lex.position(start), node.text, node.size), start)
                self._check_depth(node, start)
                return copy
        text = self.shared.environ.get(name)
        if text is None:
            raise self.lex.error(
                f"expected a value, got the variable ${name}, which neither a key above nor the environment defines",
                start,
            )
        place = self.lex.position(start)
        if name in self.naming:
            raise self.lex.error(f"expected a value, got the variable ${name}, which refers to itself", start)
        if self.level >= MAX_INCLUDES:
            raise self.lex.error(f"expected at most {MAX_INCLUDES} variables that name each other", start)
        # The text of an environment variable is itself a value of this language.
        inner = _Parser(f"pk={text}", f"${name}", self.shared, self.naming | {name}, self.level + 1, self.depth)
        try:
            tree = inner.file()
        except ConfigError as err:
            raise ConfigError(*(f"{place}: in the variable ${name}: {line}" for line in err.errors)) from None
        node = tree["pk"].node
        return Node(node.value, place, node.text, node.size)

    def _check_depth(self, node: Node, start: int) -> None:
        """Refuses a value that a variable would put too deep."""
        level, depth = [node], self.depth
        while True:
            inner: list[Node] = []
            for n in level:
                if isinstance(n.value, list):
                    inner += n.value
                elif isinstance(n.value, dict):
                    inner += (e.node for e in n.value.values())
            if not inner:
                return
            level = inner
            depth += 1
            if depth > MAX_DEPTH:
                raise self.lex.error(f"expected at most {MAX_DEPTH} arrays and maps within each other", start)

    def _include(self, scope: _Scope) -> None:
        lex = self.lex
        lex.skip_space()
        start = lex.at
        path = lex.include_path()
        place = lex.position(start)
        shared = self.shared
        shared.files += 1
        if self.level >= MAX_INCLUDES:
            raise lex.error(f"expected at most {MAX_INCLUDES} files that include each other", start)
        if shared.files > 1000:
            raise lex.error("expected at most 1000 included files", start)
        # An absolute path, too, is taken from the including file's directory.
        full = str(PurePosixPath(self.file_name).parent / path.lstrip("/"))
        try:
            text = shared.read(full)
        except (OSError, ValueError) as err:
            reason = (err.strerror if isinstance(err, OSError) else None) or str(err)
            raise ConfigError(f"{place}: expected a file to include, got {full!r}: {reason}") from None
        inner = _Parser(text, full, shared, self.naming, self.level + 1, self.depth)
        scope.entries.update(inner.file())


def digest(tree: Tree) -> str:
    """`sha256:` and the hash of the tree as JSON with sorted keys: equal for files that mean the same.

    Source: nats-server's `-t`, byte for byte (the JSON is Go's: <, > and & are escaped, dates are RFC 3339).
    """
    parts: list[str] = []
    _encode(tree, parts)
    parts.append("\n")
    return "sha256:" + hashlib.sha256("".join(parts).encode()).hexdigest()


def _encode(value: Scalar | list[Node] | Tree, out: list[str]) -> None:
    match value:
        case dict():
            for n, name in enumerate(sorted(value)):
                out.append("," if n else "{")
                out.append(_string(name) + ":")
                _encode(value[name].node.value, out)
            out.append("}" if value else "{}")
        case list():
            for n, node in enumerate(value):
                out.append("," if n else "[")
                _encode(node.value, out)
            out.append("]" if value else "[]")
        case str():
            out.append(_string(value))
        case bool():
            out.append("true" if value else "false")
        case int():
            out.append(str(value))
        case float():
            out.append(_float(value))
        case datetime():
            out.append(f'"{value:%Y-%m-%dT%H:%M:%SZ}"')


def _float(value: float) -> str:
    """Go's spelling: no exponent from 1e-6 up to 1e21, and no `.0`."""
    if value == 0:
        return "-0" if str(value).startswith("-") else "0"
    mantissa, _, exponent = repr(value).partition("e")
    if 1e-6 <= abs(value) < 1e21:
        # Decimal writes the shortest digits that repr found, without an exponent.
        text = format(Decimal(repr(value)), "f")
        return text.rstrip("0").rstrip(".") if "." in text else text
    if not exponent:
        return mantissa
    number = exponent.lstrip("+-").lstrip("0")
    return f"{mantissa.removesuffix('.0')}e{'-' if exponent.startswith('-') else '+'}{number}"


# Go escapes what HTML and JavaScript would trip over, and replaces bytes that are not UTF-8.
_GO_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"} | {n: "\\ufffd" for n in range(0xD800, 0xE000)}


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).translate(_GO_ESCAPES)
