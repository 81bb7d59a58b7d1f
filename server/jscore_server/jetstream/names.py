"""Names, subjects and identities as JetStream spells them.

Source: ADR-6 (names), nats-server `getHash` (peer ids), clustering spec §1.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import Literal, Protocol

from jscore_server.protocol.identity import BASE62

MAX_NAME_BYTES = 255
MAX_DESCRIPTION_BYTES = 4096
MAX_METADATA_BYTES = 128 * 1024
MAX_COMPARE_STEPS = 1_000_000  # under a second of Python: what one request may cost by its list of subjects

PLAIN_DIRECTORY = re.compile(r"[A-Za-z0-9_$-]+")
DIRECTORY_MAX = 200

BLANKS = frozenset(" \t\r\n\f")
NOT_IN_NAMES = BLANKS | frozenset(".*>")


class Rng(Protocol):
    """The part of `random.Random` that is needed here."""

    def randrange(self, stop: int, /) -> int: ...


def is_valid_name(name: str) -> bool:
    """True for a stream, consumer or durable name: one subject token without wildcards, of any length but 0.

    Length and path separators have errors of their own; see `has_path_separator`.
    """
    return bool(name) and NOT_IN_NAMES.isdisjoint(name)


def has_path_separator(name: str) -> bool:
    """True when the name would leave its directory (10127, 10128)."""
    return "/" in name or "\\" in name


def is_valid_subject(subject: str) -> bool:
    """True for a subject or pattern: no empty token, no blank, `>` alone in a token only at the end."""
    if not subject or not BLANKS.isdisjoint(subject):
        return False
    tokens = subject.split(".")
    return all(tokens) and ">" not in tokens[:-1]


def is_literal(subject: str) -> bool:
    """True when the subject has no wildcard token (`*` or `>` inside a longer token is an ordinary character)."""
    return not any(token in ("*", ">") for token in subject.split("."))


def subjects_overlap(a: str, b: str) -> bool:
    """True when some subject matches both patterns."""
    left, right = a.split("."), b.split(".")
    for x, y in zip(left, right, strict=False):
        if x == ">" or y == ">":
            return True
        if x != y and x != "*" and y != "*":
            return False
    return len(left) == len(right)


def is_subset(subject: str, of: str) -> bool:
    """True when every subject that matches `subject` also matches `of`."""
    left, right = subject.split("."), of.split(".")
    for i, want in enumerate(right):
        if want == ">":
            return i < len(left)
        if i >= len(left) or left[i] == ">":
            return False
        if want != "*" and left[i] != want:
            return False
    return len(left) == len(right)


class TooManySubjects(Exception):
    """Comparing this list would cost more than one request may."""


class SubjectIndex:
    """A set of patterns that finds overlaps without comparing every pair.

    Raises (from `add` and `find`): TooManySubjects after `MAX_COMPARE_STEPS` visited nodes in all.
    """

    def __init__(self, max_steps: int = MAX_COMPARE_STEPS) -> None:
        self.root: dict[str, dict[str, object]] = {}
        self.steps_left = max_steps

    def add(self, subject: str) -> str | None:
        """Adds the pattern; returns one that was there and overlaps it, else None."""
        found = self.find(subject)
        node: dict[str, object] = self.root  # type: ignore[assignment]
        for token in subject.split("."):
            node = node.setdefault(token, {})  # type: ignore[assignment]
        node[""] = subject  # no token is empty in a valid subject
        return found

    def find(self, subject: str) -> str | None:
        """A pattern of the set that overlaps `subject`, else None."""
        tokens = subject.split(".")
        # A stack, not recursion: a subject may have as many tokens as a body has bytes.
        stack: list[tuple[dict[str, object], int]] = [(self.root, 0)]  # type: ignore[list-item]
        while stack:
            node, depth = stack.pop()
            self.steps_left -= 1
            if self.steps_left < 0:
                raise TooManySubjects
            if depth == len(tokens):
                if "" in node:
                    return str(node[""])
                continue
            token = tokens[depth]
            if ">" in node:
                return str(node[">"][""])  # type: ignore[index]
            if token == ">":
                if any(key for key in node):
                    return self._any_below(node)
                continue
            if token == "*":
                self.steps_left -= len(node)
                stack.extend((child, depth + 1) for key, child in node.items() if key)  # type: ignore[misc]
                continue
            for key in ("*", token):
                child = node.get(key)
                if child is not None:
                    stack.append((child, depth + 1))  # type: ignore[arg-type]
        return None

    @staticmethod
    def _any_below(node: dict[str, object]) -> str:
        while True:
            key = next(k for k in node if k)
            node = node[key]  # type: ignore[assignment]
            if "" in node:
                return str(node[""])


def overlapping_pair(subjects: list[str]) -> tuple[str, str] | None:
    """A pair (earlier, later) of the list that overlaps, exact repeats included.

    Raises: TooManySubjects.
    """
    index = SubjectIndex()
    for subject in subjects:
        other = index.add(subject)
        if other is not None:
            return other, subject
    return None


def short_hash(text: str) -> str:
    """8 base-62 characters of the SHA-256 of the text (nats-server `getHash`)."""
    return "".join(BASE62[byte % 62] for byte in hashlib.sha256(text.encode()).digest()[:8])


def peer_id(server_name: str) -> str:
    """The id under which a server of this name is shown in `cluster.replicas[].peer`."""
    return short_hash(server_name)


@lru_cache(maxsize=256)
def account_directory(account: str) -> str:
    """The account as the name of a directory: itself where it can be one, else with what cannot be in it as `%XX`."""
    raw = account.encode("utf-8", "surrogateescape")
    encoded = "".join(chr(b) if PLAIN_DIRECTORY.fullmatch(chr(b)) else f"%{b:02X}" for b in raw)
    return (encoded or "%") if len(encoded) <= DIRECTORY_MAX else f"%{hashlib.sha256(raw).hexdigest()}"


def account_hash(account: str) -> str:
    """The account as one token of an acknowledgement subject."""
    return short_hash(account)


def random_name(rng: Rng, length: int = 8) -> str:
    """A name for a consumer whose creator gave none."""
    return "".join(BASE62[rng.randrange(62)] for _ in range(length))


def new_group_name(kind: Literal["S", "C"], replicas: int, storage: str, rng: Rng) -> str:
    """A fresh Raft group name, such as `S-R3F-wVO635Rz`; storage is `file` or `memory`."""
    return f"{kind}-R{replicas}{'M' if storage == 'memory' else 'F'}-{random_name(rng)}"
