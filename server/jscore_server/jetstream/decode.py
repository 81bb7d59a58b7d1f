"""Request bodies: hostile JSON into a model, with the peer's rules.

Keys match without regard to case, the last of several wins, several values fill one object after the other, `null`
changes nothing, numbers must be integers of their field's width. Source: spec jetstream-streams §1; ADR-1.
"""

from __future__ import annotations

import functools
import json
import re
import types
import typing
from typing import Any, TypeVar, cast

import msgspec

from jscore_server.jetstream.errors import ApiError, problem
from jscore_server.jetstream.models import Kind, format_time, parse_time

T = TypeVar("T", bound=msgspec.Struct)

MAX_BODY_BYTES = 1 << 20  # the default max_payload
MAX_DEPTH = 64  # models need 5; the rest is room for ignored fields
MAX_INT_DIGITS = 20
BLANK = " \t\r\n"

# How the peer names the type of the body in its texts; clients do not compare these.
GO_NAMES = {
    "StreamConfigRequest": ("StreamConfigRequest.StreamConfig", "server.StreamConfigRequest"),
    "CreateConsumerRequest": ("CreateConsumerRequest", "server.CreateConsumerRequest"),
}


class BadJson(Exception):
    """The body is not what the call takes; the text goes into `invalid JSON: {err}`."""


class Number(str):
    """A number as it was written, so that width and form can be judged by field."""


class Pairs(list[tuple[str, Any]]):
    """An object as it was written: order and repeats kept."""


def decode_json(body: bytes, into: type[T], *, strict: bool = True, max_bytes: int = MAX_BODY_BYTES) -> T:
    """The request in `body`; an empty body gives the zero request.

    strict: an unknown field is an error, else it is ignored.
    Raises: ApiError 10025.
    """
    try:
        return _decode(body, into, strict, max_bytes)
    except BadJson as err:
        raise problem(10025, err=str(err)) from None


def optional_body(body: bytes, into: type[T], *, strict: bool = True) -> T:
    """For calls whose body may be missing: whatever does not start with `{` or `[` counts as none.

    Raises: ApiError 10025.
    """
    if body.lstrip(b" \t\r\n")[:1] not in (b"{", b"["):
        return into()
    return decode_json(body, into, strict=strict)


def must_be_empty(body: bytes) -> None:
    """Raises: ApiError 10038 when there is a body that is not an empty object."""
    if not _is_empty(body):
        raise problem(10038)


def must_not_be_empty(body: bytes) -> None:
    """Raises: ApiError 10003 for no body or an empty object."""
    if _is_empty(body):
        raise problem(10003)


def _is_empty(body: bytes) -> bool:
    text = body.strip(b" \t\r\n")
    return not text or (text[:1] == b"{" and text[-1:] == b"}" and not text[1:-1].strip(b" \t\r\n"))


# ---- syntax ----

# The closing quote is optional: an unclosed string is passed over once, not tried again from each of its quotes.
_STRUCTURE = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?|[\[\]{}]', re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")


def _no_constant(name: str) -> Any:
    raise BadJson(f"invalid character '{name[0]}' looking for beginning of value")


_scanner = json.JSONDecoder(
    object_pairs_hook=Pairs, parse_int=Number, parse_float=Number, parse_constant=_no_constant, strict=True
)


def _decode(body: bytes, into: type[T], strict: bool, max_bytes: int) -> T:
    if len(body) > max_bytes:
        raise BadJson(f"body of {len(body)} bytes is larger than {max_bytes}")
    text = body.decode("utf-8", "replace")
    _check_depth(text)
    target = into()
    at, end = 0, len(text)
    while True:
        while at < end and text[at] in BLANK:
            at += 1
        if at == end:
            return target
        try:
            value, at = _scanner.raw_decode(text, at)
        except json.JSONDecodeError as err:
            raise BadJson(_syntax_text(text, err)) from None
        if value is None:
            continue
        if not isinstance(value, Pairs):
            go_type = GO_NAMES.get(into.__name__, ("", f"server.{into.__name__}"))[1]
            raise BadJson(f"json: cannot unmarshal {_json_type(value)} into Go value of type {go_type}")
        _fill(target, value, GO_NAMES.get(into.__name__, (into.__name__, ""))[0], strict)


def _check_depth(text: str) -> None:
    """Bounds nesting before the scanner, which recurses."""
    depth = 0
    for match in _STRUCTURE.finditer(text):
        char = match[0]
        if char in ("{", "["):
            depth += 1
            if depth > MAX_DEPTH:
                raise BadJson("exceeded max depth")
        elif char in ("}", "]"):
            depth -= 1


def _syntax_text(text: str, err: json.JSONDecodeError) -> str:
    at = err.pos
    if err.msg.startswith("Invalid control character"):
        where = "in string literal"
    elif err.msg.startswith("Invalid \\"):
        at, where = at + 1, "in string escape code"
    elif err.msg.startswith("Unterminated string"):
        at, where = len(text), ""
    elif err.msg.startswith("Expecting property name") or "trailing comma" in err.msg:
        at = at + 1 if "trailing comma" in err.msg else at
        where = "looking for beginning of object key string"
    elif err.msg.startswith("Expecting ':'"):
        where = "after object key"
    elif err.msg.startswith("Expecting ','"):
        where = "after object key:value pair" if _inside_object(text[:at]) else "after array element"
    else:
        where = "looking for beginning of value"
        # The scanner points at the start of a word it does not know; the peer at the letter that is wrong in it.
        word = {"n": "null", "t": "true", "f": "false"}.get(text[at : at + 1])
        if word is not None:
            known = next((k for k in range(len(word)) if text[at + k : at + k + 1] != word[k]), 0)
            at += known
            where = f"in literal {word} (expecting '{word[known]}')"
    while at < len(text) and text[at] in BLANK and not where.startswith("in "):
        at += 1
    if at >= len(text):
        return "unexpected EOF"
    shown = {"\t": "\\t", "\n": "\\n", "\r": "\\r", "'": "\\'", "\\": "\\\\"}.get(text[at], text[at])
    offset = len(text[:at].encode("utf-8", "replace")) + 1
    return f"invalid character '{shown}' {where} at offset {offset}"


def _inside_object(text: str) -> bool:
    stack = []
    for match in _STRUCTURE.finditer(text):
        if match[0] in ("{", "["):
            stack.append(match[0])
        elif match[0] in ("}", "]") and stack:
            stack.pop()
    return not stack or stack[-1] == "{"


# ---- types ----


def _json_type(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, Number):
        return "number"
    if isinstance(value, str):
        return "string"
    return "object" if isinstance(value, Pairs) else "array"


@functools.cache  # one entry per model class
def _fields(model: type[msgspec.Struct]) -> dict[str, tuple[str, Any]]:
    """Lower-case JSON key -> (attribute, type)."""
    hints = typing.get_type_hints(model, include_extras=True)
    return {name.lower(): (name, hints[name]) for name in model.__struct_fields__}


def _fill(target: msgspec.Struct, pairs: Pairs, path: str, strict: bool) -> None:
    fields = _fields(type(target))
    for key, value in pairs:
        found = fields.get(key.lower())
        if found is None:
            if strict:
                raise BadJson(f"json: unknown field {_quote(key)}")
            continue
        if value is None:
            continue
        name, hint = found
        where = f"{path}.{name}"
        setattr(target, name, _convert(value, hint, where, strict, getattr(target, name)))


def _convert(value: Any, hint: Any, where: str, strict: bool, present: Any) -> Any:
    """The field's value; a struct or map that is there already is filled further."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        hint = next(arg for arg in typing.get_args(hint) if arg is not type(None))
        origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return _convert_kind(value, hint.__metadata__[0], where)
    if hint is str:
        return _string(value, where)
    if hint is bool:
        if not isinstance(value, bool):
            raise _mismatch(value, where, "bool")
        return value
    if origin is list:
        (item,) = typing.get_args(hint)
        if not isinstance(value, list) or isinstance(value, Pairs):
            raise _mismatch(value, where, f"[]{_go_type(item)}")
        return [_convert(v, item, where, strict, None) if v is not None else _zero(item) for v in value]
    if origin is dict:
        if not isinstance(value, Pairs):
            raise _mismatch(value, where, "map[string]string")
        out = dict(present or {})
        for key, item in value:
            out[_clean(key)] = _string(item, where) if item is not None else ""
        return out
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        if not isinstance(value, Pairs):
            raise _mismatch(value, where, f"server.{hint.__name__}")
        struct = present if present is not None else hint()
        _fill(struct, value, f"{hint.__name__}.{where.partition('.')[2]}", strict)
        return struct
    raise AssertionError(f"no rule for the type of {where}")


def _convert_kind(value: Any, kind: Kind, where: str) -> Any:
    if kind.values is not None:
        return _enum(value, kind)
    if kind.name == "time.Time":
        if not isinstance(value, str) or isinstance(value, Number):
            raise BadJson("Time.UnmarshalJSON: input is not a JSON string")
        try:
            return format_time(parse_time(value))
        except (ValueError, OverflowError):
            shown = _quote(value)
            raise BadJson(
                f'parsing time {shown} as "2006-01-02T15:04:05Z07:00": cannot parse {shown} as "2006"'
            ) from None
    if not isinstance(value, Number):
        raise _mismatch(value, where, kind.name)
    digits = value.lstrip("-")
    if not digits.isdigit() or len(digits) > MAX_INT_DIGITS or not kind.lo <= int(value) <= kind.hi:
        raise BadJson(
            f"json: cannot unmarshal number {_clean(value[:64])} into Go struct field {where} of type {kind.name}"
        )
    return int(value)


def _enum(value: Any, kind: Kind) -> str:
    assert kind.values is not None
    text = value if isinstance(value, str) and not isinstance(value, Number) else None
    if text is not None and kind.name == "folded":
        text = text.lower()
    if text is not None and text in kind.values:
        return kind.values[text]
    if kind.name == "compression":
        raise BadJson("unknown compression algorithm")
    if kind.name == "priority":
        raise BadJson(f"unknown priority policy: {_written(value)}")
    if kind.name == "action":
        raise BadJson(f"unknown consumer action: {_written(value)}")
    raise BadJson(f"can not unmarshal {_quote(_written(value))}")


def _written(value: Any) -> str:
    """The value as JSON again, short."""
    if isinstance(value, Number):
        return _clean(value[:64])
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _quote(value)
    return "{}" if isinstance(value, Pairs) else "[]"


def _quote(text: str) -> str:
    return json.dumps(_clean(text[:256]), ensure_ascii=False)


def _clean(text: str) -> str:
    """Half of a surrogate pair cannot be stored or sent: it becomes U+FFFD, as in the peer."""
    return _SURROGATE.sub("\ufffd", text)


def _string(value: Any, where: str) -> str:
    if not isinstance(value, str) or isinstance(value, Number):
        raise _mismatch(value, where, "string")
    return _clean(value)


def _mismatch(value: Any, where: str, go_type: str) -> BadJson:
    return BadJson(f"json: cannot unmarshal {_json_type(value)} into Go struct field {where} of type {go_type}")


def _go_type(hint: Any) -> str:
    if hint is str:
        return "string"
    if typing.get_origin(hint) is typing.Annotated:
        return cast(str, hint.__metadata__[0].name)
    return f"*server.{hint.__name__}"


def _zero(hint: Any) -> Any:
    if typing.get_origin(hint) is typing.Annotated:
        return 0 if hint.__args__[0] is int else ""
    return hint()


__all__ = ["ApiError", "decode_json", "must_be_empty", "must_not_be_empty", "optional_body"]
