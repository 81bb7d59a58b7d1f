"""Which user a certificate stands for. Pure. Source: security.md section 2 (`verify_and_map`).

A user's name is an address, a host or a URI among the certificate's other names, or its subject as RFC 4514 writes it:
compared part by part, so that blanks, the letters of a type and, at last, the order do not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from jscore_server.protocol.certificate import Certificate, escaped

__all__ = ["Subject", "known_host", "mapped_user", "parse_subject", "plain_names"]

Set = frozenset[tuple[str, str]]
Subject = tuple[Set, ...]

DOMAIN = "0.9.2342.19200300.100.1.25"
TYPES = {
    "2.5.4.6": "C",
    "2.5.4.8": "ST",
    "2.5.4.7": "L",
    "2.5.4.9": "STREET",
    "2.5.4.17": "POSTALCODE",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "2.5.4.3": "CN",
    "2.5.4.5": "SERIALNUMBER",
}
"""In the order in which a subject is written anew, from the right."""


def mapped_user(certificate: Certificate, users: dict[str, Subject | None], fits: Callable[[str], bool]) -> str | None:
    """The user's name; None for nobody. `users`: names, with what `parse_subject` makes of each."""
    for name in (*certificate.emails, *certificate.dns, *certificate.uris):
        if name in users and fits(name):
            return name
    own = _subject(certificate)
    if own is not None:
        parsed = [(name, subject) for name, subject in users.items() if subject is not None and fits(name)]
        for same in (own.__eq__, lambda subject: _unordered(subject) == _unordered(own)):
            for name, subject in parsed:
                if same(subject):
                    return name
    return next((text for text in plain_names(certificate) if text and text in users and fits(text)), None)


def _unordered(subject: Subject) -> list[list[tuple[str, str]]]:
    return sorted(sorted(group) for group in subject)


def _subject(certificate: Certificate) -> Subject | None:
    """The last named first; None when an attribute has no name here."""
    types = {**TYPES, DOMAIN: "DC"}
    if not certificate.names or any(oid not in types for group in certificate.names for oid, _ in group):
        return None
    return tuple(frozenset((types[oid], value) for oid, value in group) for group in reversed(certificate.names))


def plain_names(certificate: Certificate) -> tuple[str, str]:
    """The subject written anew from what usually is in one: with its domain components behind ('' without them), and
    alone.
    """
    attributes = [attribute for group in certificate.names for attribute in group]
    parts = []
    for oid, name in reversed(TYPES.items()):
        values = [f"{name}={escaped(value)}" for kind, value in attributes if kind == oid]
        if values:
            parts.append("+".join(values))
    domains = [f"DC={escaped(value)}" for kind, value in attributes if kind == DOMAIN]
    alone = ",".join(parts)
    return (",".join([*parts, *domains]) if domains else ""), alone


def parse_subject(text: str) -> Subject | None:
    """A user's name as a subject; None when it is none."""
    groups: list[Set] = []
    group: list[tuple[str, str]] = []
    kind: str | None = None
    value, kept, at = "", 0, 0  # kept: how much of the value blanks at its end do not take away
    while at <= len(text):
        c = text[at : at + 1]
        if c in ("", ",", ";", "+"):
            if kind is None or not kind:
                return None
            group.append((kind, value[: max(kept, len(value.rstrip(" ")))]))
            if c != "+":
                groups.append(frozenset(group))
                group = []
            kind, value, kept = None, "", 0
        elif c == "=" and kind is None:
            kind, value = value.strip().upper(), ""
            while text[at + 1 : at + 2] == " ":
                at += 1
        elif c == "\\":
            pair = text[at + 1 : at + 3]
            if len(pair) == 2 and all(h in "0123456789abcdefABCDEF" for h in pair):
                value += chr(int(pair, 16))
                at += 2
            elif pair:
                value += pair[0]
                at += 1
            else:
                return None
            kept = len(value)
        else:
            value += c
        at += 1
    return tuple(groups)


def known_host(names: Iterable[str], hosts: Iterable[str]) -> bool:
    """Whether one of a certificate's names is one of the hosts; the first label of a name may be `*`."""
    wanted = [host.lower().split(".") for host in hosts]
    for name in names:
        labels = name.lower().split(".")
        for host in wanted:
            if len(labels) == len(host) and labels[1:] == host[1:] and labels[0] in ("*", host[0]):
                return True
    return False
