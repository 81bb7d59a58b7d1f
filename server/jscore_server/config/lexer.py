"""Tokens of the configuration language: keys, scalar values, white space, comments. Pure.

Source: the language as nats-server v2.14.5 reads it. Every error carries file, line and column, both counted from 1.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from datetime import UTC, datetime
from math import isinf

import msgspec

__all__ = ["ConfigError", "Lexer", "Position", "Scalar", "Variable"]

Scalar = bool | int | float | str | datetime


class Position(msgspec.Struct, frozen=True):
    """A place in a file; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class ConfigError(Exception):
    """The configuration cannot be used. `errors` holds one line per fault, each with its place where it has one."""

    def __init__(self, *errors: str) -> None:
        # A name quoted in a message may hold line ends; a fault stays one line.
        self.errors: tuple[str, ...] = tuple(e.replace("\r", "\\r").replace("\n", "\\n") for e in errors)
        super().__init__("\n".join(self.errors))


class Variable(msgspec.Struct, frozen=True):
    """An unquoted `$NAME` in the place of a value."""

    name: str


_SPACE = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[^ \t\r\n=:]*")
# What an unquoted string may hold before something that ends it or a backslash.
_PLAIN = re.compile(r"[^ \t\r\n,;\]}'\\]*")
_INCLUDE_PATH = re.compile(r"[^ \t\r\n;}]*")
_TO_LINE_END = re.compile(r"[^\r\n]*")
_QUOTED = re.compile(r'[^"\\]*')
_HEX2 = re.compile(r"[0-9a-fA-F]{2}")
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_FLOAT = re.compile(r"-?\d+\.\d+", re.ASCII)
_ADDRESS_REST = re.compile(r"[0-9.:\-]*")
_DIGITS = re.compile(r"-?\d+", re.ASCII)
_SUFFIX = re.compile(r"[kmgtpe][bi]*", re.IGNORECASE)
_BLOCK_END = re.compile(r"[\r\n]\)(?=[\r\n]|\Z)")

_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", '"': '"', "\\": "\\"}
_TRUE = frozenset(("true", "yes", "on"))
_FALSE = frozenset(("false", "no", "off"))
_ENDS_NUMBER = frozenset(" \t\r\n,;}")
_INT64 = 1 << 63
# int() refuses very long digit strings with a text of its own; 19 digits are the most an int64 has.
_MAX_DIGITS = 19

SUFFIXES: dict[str, int] = {
    letter + tail: (1000 if not tail else 1024) ** power
    for power, letter in enumerate("kmgtpe", start=1)
    for tail in ("", "b", "i", "ib")
}
"""Multipliers of integers: `k` = 1000, `kb` = `ki` = `kib` = 1024, and so on to `e`."""


class Lexer:
    """A cursor over one text. Methods consume what they name, or raise ConfigError at the offending character."""

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        self.at = 0
        self._lines = [0, *(i + 1 for i, c in enumerate(text) if c == "\n")]
        nul = text.find("\0")
        if nul >= 0:
            raise self.error("expected text, got a NUL byte", nul)

    def position(self, offset: int) -> Position:
        """The place of a character."""
        line = bisect_right(self._lines, offset)
        return Position(self.file, line, offset - self._lines[line - 1] + 1)

    def error(self, message: str, offset: int | None = None) -> ConfigError:
        """A ConfigError at `offset` (default: the cursor)."""
        return ConfigError(f"{self.position(self.at if offset is None else offset)}: {message}")

    def peek(self) -> str:
        """The character at the cursor, '' at the end."""
        return self.text[self.at : self.at + 1]

    def describe(self) -> str:
        """The character at the cursor, as an error message names it."""
        c = self.peek()
        if c == "":
            return "the end of the file"
        if c in "\r\n":
            return "the end of the line"
        if c.isprintable() and not "\ud800" <= c <= "\udfff":
            return f"'{c}'"
        return f"character U+{ord(c):04X}"

    def skip_space(self) -> None:
        """Skips spaces and tabs."""
        match = _SPACE.match(self.text, self.at)
        assert match
        self.at = match.end()

    def skip_comment(self) -> bool:
        """Skips a comment to the end of its line; False if there is none at the cursor."""
        if not self.text.startswith(("#", "//"), self.at):
            return False
        match = _TO_LINE_END.match(self.text, self.at)
        assert match
        self.at = match.end()
        return True

    def skip_newline(self) -> bool:
        """Skips one LF or CR; False if there is none."""
        if self.text.startswith(("\n", "\r"), self.at):
            self.at += 1
            return True
        return False

    def skip_blank(self) -> None:
        """Skips spaces, line ends and comments."""
        while True:
            self.skip_space()
            if not self.skip_newline() and not self.skip_comment():
                return

    def skip_lines(self) -> None:
        """Skips spaces and line ends, but no comments: where a value may stand, `#` begins a string."""
        while True:
            self.skip_space()
            if not self.skip_newline():
                return

    def key(self) -> tuple[str, bool]:
        """A key, and whether it was quoted."""
        c = self.peek()
        if c == "" or c in "=:,;/":
            raise self.error(f"expected a key, got {self.describe()}")
        if c == '"' or c == "'":
            return self._raw_until(c), True
        match = _BARE_KEY.match(self.text, self.at)
        assert match
        self.at = match.end()
        return match[0], False

    def include_path(self) -> str:
        """The path of an include."""
        c = self.peek()
        if c == '"' or c == "'":
            return self._raw_until(c)
        match = _INCLUDE_PATH.match(self.text, self.at)
        if match is None or match[0] == "" or c in "{[(":
            raise self.error(f"expected the path of a file to include, got {self.describe()}")
        self.at = match.end()
        return match[0]

    def scalar(self, in_array: bool) -> Scalar | Variable:
        """A value that is neither array nor map."""
        c = self.peek()
        if c == '"':
            return self._double_quoted()
        if c == "'":
            return self._raw_until(c)
        if c == "(":
            return self._block()
        if c == ".":
            raise self.error("expected a digit before the '.' of a number, or quotes around a string")
        if c == "-" or "0" <= c <= "9":
            return self._number(in_array)
        start = self.at
        text = self._unquoted()
        if text.startswith("$") and self.text[start] == "$":
            # A bcrypt hash needs no quotes.
            return text if text.startswith("$2a$") else Variable(text[1:])
        lower = text.lower()
        if lower in _TRUE:
            return True
        if lower in _FALSE:
            return False
        return text

    def _raw_until(self, quote: str) -> str:
        start = self.at
        end = self.text.find(quote, start + 1)
        if end < 0:
            raise self.error(f"expected a closing {quote} for this one, got the end of the file")
        self.at = end + 1
        return self.text[start + 1 : end]

    def _double_quoted(self) -> str:
        start = self.at
        self.at += 1
        parts: list[str] = []
        while True:
            match = _QUOTED.match(self.text, self.at)
            assert match
            parts.append(match[0])
            self.at = match.end()
            c = self.peek()
            if c == "":
                raise self.error('expected a closing " for this one, got the end of the file', start)
            if c == '"':
                self.at += 1
                return _joined(parts)
            parts.append(self._escape())

    def _escape(self) -> str:
        start = self.at
        self.at += 1
        c = self.peek()
        if c == "x":
            match = _HEX2.match(self.text, self.at + 1)
            if match is None:
                raise self.error(r"expected two hexadecimal digits after \x", start)
            self.at = match.end()
            byte = int(match[0], 16)
            # The digits give a byte, not a character: bytes above 127 join into UTF-8 in _joined.
            return chr(byte) if byte < 0x80 else chr(0xDC00 + byte)
        if c not in _ESCAPES or c == "":
            what = self.describe()
            raise self.error(rf"expected one of \xXX \t \n \r \" \\ after the backslash, got {what}", start)
        self.at += 1
        return _ESCAPES[c]

    def _block(self) -> str:
        start = self.at
        match = _BLOCK_END.search(self.text, start + 1)
        if match is None:
            raise self.error("expected a line with only ')' that ends this block, got the end of the file", start)
        self.at = match.end()
        return self.text[start + 1 : match.start() + 1]

    def _unquoted(self, begun: str = "") -> str:
        parts = [begun]
        while True:
            match = _PLAIN.match(self.text, self.at)
            assert match
            parts.append(match[0])
            self.at = match.end()
            c = self.peek()
            if c == "\\":
                parts.append(self._escape())
                continue
            if c == "'" and any(parts):
                self.at += 1
            return _joined(parts)

    def _number(self, in_array: bool) -> Scalar:
        start = self.at
        text = self.text
        match = _DIGITS.match(text, start)
        if match is None:
            raise self.error("expected a digit after '-', or quotes around a string that begins with '-'", start + 1)
        self.at = match.end()
        c = self.peek()
        if c == "-":
            return self._date(start)
        if c == ".":
            return self._float(start)
        digits, multiplier = match[0], 1
        suffix = _SUFFIX.match(text, self.at)
        if suffix:
            after = text[suffix.end() : suffix.end() + 1]
            if after and after not in _ENDS_NUMBER and not (after == "]" and in_array) and not "0" <= after <= "9":
                return self._unquoted_from(start)
            if suffix[0].lower() not in SUFFIXES:
                raise self.error(f'expected a size such as 1k, 1kb or 1kib, got "{digits}{suffix[0]}"', start)
            multiplier = SUFFIXES[suffix[0].lower()]
            self.at = suffix.end()
        elif c and c not in _ENDS_NUMBER and not (c == "]" and in_array):
            if digits.startswith("-"):
                raise self.error(f"expected the end of the number, got {self.describe()}")
            # The first character that is no digit belongs to the string, even if it is a quote or a backslash.
            self.at += 1
            return self._unquoted(text[start : self.at])
        if len(digits.lstrip("-").lstrip("0")) > _MAX_DIGITS:
            raise self.error("expected an integer of 64 bits, got a larger one", start)
        value = int(digits)
        if not -_INT64 <= value < _INT64:
            raise self.error(f"expected an integer of 64 bits, got {value}", start)
        # What a suffix takes out of 64 bits is cut to them, as in nats-server; `kinds` refuses to start with it.
        return (value * multiplier + _INT64) % (2 * _INT64) - _INT64

    def _unquoted_from(self, start: int) -> str:
        self.at = start
        return self._unquoted()

    def _date(self, start: int) -> datetime:
        match = _DATE.match(self.text, start)
        try:
            if match is None:
                raise ValueError
            value = datetime.strptime(match[0], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        except ValueError:
            message = "expected a date such as 2026-01-31T23:59:59Z, or quotes around a string that begins with digits"
            raise self.error(message, start) from None
        self.at = match.end()
        return value

    def _float(self, start: int) -> float | str:
        match = _FLOAT.match(self.text, start)
        if match is None:
            self.at += 1
            raise self.error(f"expected a digit after the '.' of a number, got {self.describe()}")
        self.at = match.end()
        if self.peek() == ".":
            # Two dots: an address, which may carry a port.
            rest = _ADDRESS_REST.match(self.text, self.at)
            assert rest
            self.at = rest.end()
            return self.text[start : self.at]
        value = float(match[0])
        if isinf(value):
            raise self.error("expected a number of 64 bits, got a larger one", start)
        return value


def _joined(parts: list[str]) -> str:
    text = "".join(parts)
    if text.isascii():
        return text
    # Escaped bytes became lone surrogates; those that are UTF-8 together become the character they spell.
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
