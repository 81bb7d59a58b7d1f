"""What is asked of a page: the query of a URL or the JSON of a request, read as nats-server reads it. Pure.

Source: monitoring.md sections 1, 2 and 3.1.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

__all__ = [
    "Asked",
    "BadQuery",
    "NotAsked",
    "Option",
    "boolean",
    "integer",
    "nothing",
    "number",
    "read_json",
    "read_query",
    "uptime",
]

_TRUE = {"1", "t", "T", "TRUE", "true", "True"}
_FALSE = {"0", "f", "F", "FALSE", "false", "False", ""}
_UNITS = ((365 * 86_400, "y"), (86_400, "d"), (3600, "h"), (60, "m"))
_STATES = {"": 0, "open": 0, "closed": 1, "any": 2, "all": 2}
DEPTH_MAX = 32

Asked = dict[str, Any]
"""Every option of a page by its JSON name; those not asked for have their zero."""

Kind = Literal["text", "bool", "int", "uint", "state", "subs", "texts"]
_ZERO: dict[Kind, Any] = {"text": "", "bool": False, "int": 0, "uint": 0, "state": 0, "subs": False, "texts": ()}
_GO_TYPE: dict[Kind, str] = {
    "text": "string",
    "bool": "bool",
    "int": "int",
    "uint": "uint64",
    "state": "server.ConnState",
    "subs": "bool",
    "texts": "[]string",
}


class BadQuery(Exception):
    """A parameter cannot be read or obeyed; the text is the body of the 400."""


class NotAsked(BadQuery):
    """The request is for another server: over HTTP an error, in the system account silence."""


@dataclass(frozen=True)
class Option:
    """One option of a page. `name` is the JSON one; `http` the one in a URL: the same unless given, None: not there.

    A `subs` option of value `detail` in a URL sets `<name>_detail` as well.
    """

    name: str
    kind: Kind
    http: str | None = ""

    @property
    def in_url(self) -> str | None:
        return self.name if self.http == "" else self.http


def nothing(options: tuple[Option, ...]) -> Asked:
    """What is asked when nothing is said."""
    asked: Asked = {}
    for option in options:
        asked[option.name] = _ZERO[option.kind]
        if option.kind == "subs":
            asked[option.name + "_detail"] = False
    return asked


def read_query(options: tuple[Option, ...], query: dict[str, str]) -> Asked:
    """Raises: BadQuery."""
    asked = nothing(options)
    for option in options:
        name = option.in_url
        if name is None or name not in query:
            continue
        text = query[name]
        if option.kind == "text":
            asked[option.name] = text
        elif option.kind == "bool":
            asked[option.name] = asked[option.name] or boolean(query, name)
        elif option.kind == "subs":
            detail = text.lower() == "detail"
            asked[option.name] = detail or boolean(query, name)
            asked[option.name + "_detail"] = detail
        elif option.kind == "int":
            asked[option.name] = integer(query, name)
        elif option.kind == "uint":
            asked[option.name] = _unsigned(query, name)
        elif option.kind == "state":
            if text.lower() not in _STATES:
                raise BadQuery(f"Error decoding state for {text}")
            asked[option.name] = _STATES[text.lower()]
    return asked


def read_json(options: tuple[Option, ...], body: bytes, go_name: str = "EventOptions") -> tuple[Asked, Asked]:
    """The options and the whole object, names in lower case. An empty body asks for nothing. Raises: BadQuery."""
    asked = nothing(options)
    if not body.strip():
        return asked, {}
    found = _object(body)
    for option in options:
        if option.kind == "subs":
            asked[option.name + "_detail"] = _typed(found, Option(option.name + "_detail", "bool"), go_name)
        asked[option.name] = _typed(found, option, go_name)
    return asked, found


def _typed(found: Asked, option: Option, go_name: str) -> Any:
    value = found.get(option.name)
    kind = option.kind
    if value is None:
        return _ZERO[kind]
    if kind == "text":
        fits = isinstance(value, str)
    elif kind in ("bool", "subs"):
        fits = isinstance(value, bool)
    elif kind == "texts":
        fits = isinstance(value, list) and all(isinstance(item, str) for item in value)
    else:
        low = 0 if kind == "uint" else -(1 << 63)
        fits = isinstance(value, int) and not isinstance(value, bool) and low <= value < 1 << 63
    if fits:
        return value
    raise BadQuery(
        f"json: cannot unmarshal {_json_type(value)} into Go struct field {go_name}.{option.name} "
        f"of type {_GO_TYPE[kind]}"
    )


def _object(body: bytes) -> Asked:
    text = body.decode("utf-8", "replace")
    if text.count("[") + text.count("{") > DEPTH_MAX:
        raise BadQuery("exceeded max depth")
    try:
        value = json.loads(text)
    except json.JSONDecodeError as err:
        if err.pos >= len(text):
            raise BadQuery("unexpected end of JSON input") from None
        where = (
            "looking for beginning of object key string"
            if "property name" in err.msg
            else "looking for beginning of value"
        )
        raise BadQuery(f"invalid character '{text[err.pos]}' {where}") from None
    except (ValueError, RecursionError):
        raise BadQuery("invalid JSON") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadQuery(f"json: cannot unmarshal {_json_type(value)} into Go value of type server.EventFilterOptions")
    return {str(key).lower(): item for key, item in value.items()}


def _json_type(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return f"number {value}" if value < 0 or not isinstance(value, int) else "number"
    return "string" if isinstance(value, str) else "array" if isinstance(value, list) else "object"


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


def _unsigned(query: dict[str, str], name: str) -> int:
    text = query.get(name, "")
    if not text:
        return 0
    if not re.fullmatch(r"[0-9]{1,40}", text, re.ASCII):
        raise BadQuery(
            f"Error decoding uint64 for '{name}': strconv.ParseUint: parsing {_quoted(text)}: invalid syntax"
        )
    value = int(text)
    if value >= 1 << 64:
        raise BadQuery(
            f"Error decoding uint64 for '{name}': strconv.ParseUint: parsing {_quoted(text)}: value out of range"
        )
    return value


def _quoted(text: str) -> str:
    escaped = "".join(c if c.isprintable() and c not in '"\\' else c.encode("unicode_escape").decode() for c in text)
    return f'"{escaped}"'


def number(value: float) -> int | float:
    """A fraction as Go prints it: without `.0` where there is nothing behind the point."""
    return int(value) if value == int(value) else value


def uptime(seconds: float) -> str:
    """`1y2d3h4m5s` without leading zero units."""
    rest = max(0, int(seconds))
    text = ""
    for size, unit in _UNITS:
        count, rest = divmod(rest, size)
        if count or text:
            text += f"{count}{unit}"
    return f"{text}{rest}s"
