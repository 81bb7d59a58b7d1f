"""A subject mapping, and which share of a source's messages goes where in a given cluster. Pure."""

from __future__ import annotations

import re

import msgspec

__all__ = ["FUNCTION", "Destination", "Mapping", "destinations", "shares"]

FUNCTION = re.compile(
    r"\{\{\s*([wW]ildcard|[pP]artition|[rR]andom|[sS]plit|[sS]plit[fF]rom[lL]eft|[sS]plit[fF]rom[rR]ight"
    r"|[sS]lice[fF]rom[lL]eft|[sS]lice[fF]rom[rR]ight)\s*\((.*)\)\s*\}\}",
    re.DOTALL,
)
"""A token of a destination that is made from the source's wildcards."""


class Destination(msgspec.Struct, frozen=True):
    """Where some of a source's messages go; `cluster` '': on every server."""

    subject: str
    weight: int = 100
    cluster: str = ""


class Mapping(msgspec.Struct):
    """A source subject and its destinations."""

    source: str
    destinations: list[Destination] = msgspec.field(default_factory=list)


def destinations(mapping: Mapping, cluster: str) -> list[Destination]:
    """Those of a server in that cluster: the ones for it, or where there are none those for all."""
    own = [each for each in mapping.destinations if each.cluster and each.cluster == cluster]
    return own or [each for each in mapping.destinations if not each.cluster]


def shares(found: list[Mapping], cluster: str) -> list[tuple[str, str, int]]:
    """(source, destination, percent) as the data plane takes them, for a server in that cluster.

    What the percents leave stays on the source, unless the file names the source as a destination: then it goes
    nowhere, destination ''.
    """
    out = []
    for mapping in found:
        source = mapping.source
        chosen = [(_plain(each.subject), each.weight) for each in destinations(mapping, cluster) if each.subject]
        if any(each.subject == source for each in mapping.destinations):
            chosen.append(("", 100 - sum(weight for _, weight in chosen)))
        out += [(source, subject, weight) for subject, weight in chosen or [("", 0)]]
    return out


def _plain(destination: str) -> str:
    """With nothing in a token beside its function: what stands around it was accepted and means nothing."""
    found = (FUNCTION.search(token) if token.startswith("{{") else None for token in destination.split("."))
    return ".".join(
        token if match is None else f"{{{{{match[1]}({match[2]})}}}}"
        for token, match in zip(destination.split("."), found, strict=True)
    )
