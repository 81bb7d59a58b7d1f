"""Where a new stream goes: decided once, by the meta leader, and written into the assignment.

Pure. Source: clustering.md §3.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import msgspec


class NoPeers(ValueError):
    """Fewer usable servers than replicas; the text is the description of error 10005."""


class Server(msgspec.Struct, frozen=True):
    """A JetStream server as the meta leader sees it. `streams`: replicas it holds."""

    name: str
    online: bool = True
    cluster: str = ""
    tags: frozenset[str] = msgspec.field(default_factory=frozenset)
    streams: int = 0


class Placement(msgspec.Struct, frozen=True):
    """`peers` in order of preference; `preferred` (the first online one) campaigns first."""

    peers: list[str]
    preferred: str


def place(
    servers: Sequence[Server],
    replicas: int,
    *,
    shuffle: Callable[[list[Server]], None],
    cluster: str = "",
    tags: Sequence[str] = (),
    unique_tag: str = "",
    keep: Sequence[str] = (),
    exclude: Collection[str] = (),
) -> Placement:
    """Chooses `replicas` servers: online ones with the fewest streams first, ties in the order `shuffle` gives.

    Servers that are offline fill up only when a quorum of the replicas is online. `tags` must all be present, a tag
    with a leading `!` must be absent; no two servers may share a tag that starts with `unique_tag`. Those to `keep`
    come first and count as they are; those to `exclude` do not come into question.
    Raises: NoPeers.
    """
    wanted = [t.lower() for t in tags]
    refused: list[str] = []
    usable = [s for s in servers if not cluster or s.cluster == cluster]
    if cluster and not usable:
        raise NoPeers(f"no suitable peers for placement, no servers in cluster ['{cluster}']")
    kept = [s for name in keep for s in servers if s.name == name]
    usable = [s for s in usable if s not in kept and s.name not in exclude]
    suitable = [s for s in usable if _fits(s, wanted)]
    if len(suitable) < len(usable):
        refused.append("tags not matched [" + ", ".join(f"'{t}'" for t in tags) + "]" if tags else "excluded by tag")
    shuffle(suitable)
    suitable.sort(key=lambda s: (not s.online, s.streams))
    chosen: list[Server] = list(kept)
    unique = unique_tag.lower()
    if unique and any(t.startswith(unique) for t in wanted):
        unique = ""
    seen = {t for s in kept for t in _zones(s, unique)}
    shared = False
    for server in suitable:
        if len(chosen) >= replicas:
            break
        zones = _zones(server, unique)
        if unique and (not zones or zones & seen):
            shared = True
            continue
        seen |= zones
        chosen.append(server)
    if shared:
        refused.append(f"server tag not unique ['{unique_tag}']")
    online = sum(s.online for s in chosen)
    if online < replicas // 2 + 1 and any(not s.online for s in suitable):
        refused.append("peer offline")
    if len(chosen) < replicas or online < replicas // 2 + 1:
        raise NoPeers(", ".join(["no suitable peers for placement", *refused]))
    return Placement([s.name for s in chosen], chosen[0].name)


def fitting(servers: Sequence[Server], *, cluster: str = "", tags: Sequence[str] = ()) -> list[str]:
    """Names of the servers that this placement allows, each by itself."""
    wanted = [t.lower() for t in tags]
    return [s.name for s in servers if (not cluster or s.cluster == cluster) and _fits(s, wanted)]


def _zones(server: Server, unique: str) -> set[str]:
    return {t for t in server.tags if unique and t.lower().startswith(unique)}


def _fits(server: Server, tags: Sequence[str]) -> bool:
    have = {t.lower() for t in server.tags}
    if "!jetstream" in have:
        return False
    return all(t[1:] not in have if t.startswith("!") else t in have for t in tags)
