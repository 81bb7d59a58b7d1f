"""The rules of `mappings`: whether a destination's functions fit its source, weights, and what they add up to. Pure."""

from __future__ import annotations

import re
from typing import Any

from .kinds import Reader, Wrong, map_of, mistyped, string
from .parser import Entry, Node, Tree
from .subject_mapping import FUNCTION, Destination, Mapping

__all__ = ["mappings", "transform_fault", "valid_subject"]

_PLACE = re.compile(r"\$([0-9]+)\Z")
_INT32 = 1 << 31


def valid_subject(text: str) -> bool:
    """Whether a subject, wildcards allowed, could be subscribed to."""
    tokens = text.split(".")
    return not re.search(r"[ \t\r\n\f]", text) and all(tokens) and ">" not in tokens[:-1]


def transform_fault(source: str, destination: str) -> str:
    """What is wrong with a destination for its source, '' if nothing is."""
    if not destination:
        return ""
    stars = sum(token == "*" for token in source.split("."))
    tokens = destination.split(".")
    # A function may hold blanks.
    plain = ["f" if token.startswith("{{") and token.endswith("}}") else token for token in tokens]
    if not valid_subject(".".join(plain)):
        return "invalid mapping destination: invalid transform"
    for token in tokens:
        fault = _token_fault(token, stars)
        if fault:
            return f"invalid mapping destination: {fault} in {token}"
    if "*" in tokens or (tokens[-1] == ">") != (source.split(".")[-1] == ">"):
        return "invalid subject"
    return ""


def _token_fault(token: str, stars: int) -> str:
    place = _PLACE.match(token)
    if place:
        return "wildcard index out of range" if int(place[1]) > stars else ""
    if len(token) <= 4 or not (token.startswith("{{") and token.endswith("}}")):
        return ""
    match = FUNCTION.search(token)
    if match is None:
        return "unknown function"
    name, args = match[1].lower(), re.split(r",\s*", match[2].strip()) if match[2].strip() else [""]
    return _function_fault(name, args, stars)


def _function_fault(name: str, args: list[str], stars: int) -> str:
    indexes: list[str]
    match name:
        case "wildcard":
            if args == [""]:
                return "not enough arguments passed to the function"
            if len(args) > 1:
                return "too many arguments passed to the function"
            indexes, numbers = args, []
        case "partition":
            indexes, numbers = args[1:], args[:1]
        case "random":
            if len(args) != 1:
                return "not enough arguments passed to the function"
            indexes, numbers = [], args
        case "split":
            if len(args) < 2:
                return "not enough arguments passed to the function"
            if len(args) > 2:
                return "too many arguments passed to the function"
            if " " in args[1] or "." in args[1]:
                return "function argument is invalid or in the wrong format"
            indexes, numbers = args[:1], []
        case _:
            if len(args) < 2:
                return "not enough arguments passed to the function"
            if len(args) > 2:
                return "too many arguments passed to the function"
            indexes, numbers = args[:1], args[1:]
    for text in (*indexes, *numbers):
        if not re.fullmatch(r"\s*[+-]?[0-9]{1,10}\s*", text) or not -_INT32 <= int(text) < _INT32:
            return "function argument is invalid or in the wrong format"
    return "wildcard index out of range" if any(int(text) > stars for text in indexes) else ""


def mappings(reader: Reader, entry: Entry) -> list[Mapping]:
    """The mappings of an account, in the order of the file."""
    found = []
    for inner in map_of(entry).values():
        if not valid_subject(inner.name):
            reader.fault(inner.position, f'Subject "{inner.name}" is not a valid subject')
            continue
        before = len(reader.errors)
        mapping = Mapping(inner.name, _destinations(reader, inner))
        fault = _mapping_fault(mapping) if len(reader.errors) == before else ""
        if fault:
            reader.fault(inner.position, f"Error adding mapping for {fault}")
        found.append(mapping)
    return found


def _mapping_fault(mapping: Mapping) -> str:
    seen: set[str] = set()
    weights: dict[str, int] = {}
    for destination in mapping.destinations:
        subject = destination.subject
        if subject in seen:
            return f'"{mapping.source}" : duplicate entry for "{subject}"'
        seen.add(subject)
        fault = transform_fault(mapping.source, subject)
        if fault:
            return f'"{mapping.source}" to "{subject}" : {fault}'
        weights[destination.cluster] = weights.get(destination.cluster, 0) + destination.weight
        if weights[destination.cluster] > 100:
            return f'"{mapping.source}" : total weight needs to be <= 100'
    return ""


def _destinations(reader: Reader, entry: Entry) -> list[Destination]:
    value = entry.node.value
    if isinstance(value, str):
        return [Destination(value)]
    nodes = value if isinstance(value, list) else [entry.node]
    found = []
    for node in nodes:
        if not isinstance(node.value, dict):
            reader.fault(node.position, "Expected an entry for the mapping destination")
            continue
        try:
            found.append(_destination(reader, node.value, node))
        except Wrong as err:
            reader.fault(node.position, str(err))
    return found


def _destination(reader: Reader, tree: Tree, node: Node) -> Destination:
    subject, cluster, weight = "", "", None
    for inner in tree.values():
        match inner.name.lower():
            case "dest" | "destination":
                subject = string(reader, inner)
            case "weight":
                weight = _weight(inner)
            case "cluster":
                cluster = string(reader, inner)
            case _:
                if not inner.used:
                    raise Wrong(f'Unknown field "{inner.name}" for mapping destination')
    if weight is None:
        raise Wrong(f'Missing weight for mapping destination "{subject}"')
    return Destination(subject, weight, cluster)


def _weight(entry: Entry) -> int:
    value: Any = entry.node.value
    if isinstance(value, str):
        digits = value.removesuffix("%")
        if not re.fullmatch(r"[+-]?[0-9]{1,9}", digits):
            raise Wrong(f'Invalid weight "{value}" for mapping destination')
        value = int(digits)
    if isinstance(value, bool) or not isinstance(value, int):
        raise mistyped(entry, "a weight of 0 to 100")
    if not 0 <= value <= 100:
        raise Wrong(f"Invalid weight {value} for mapping destination")
    return value
