"""Who may connect and what they may do, as the configuration says it. Pure; everything here compares by value.

A permission's subject list of None forbids nothing by itself; names, limits and defaults are nats-server's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from .subject_mapping import Mapping

__all__ = [
    "GLOBAL_ACCOUNT",
    "SYSTEM_ACCOUNT",
    "Account",
    "AccountJetStream",
    "AccountLimits",
    "ClientAuthorization",
    "MessageTrace",
    "Permissions",
    "Responses",
    "Subjects",
    "User",
]

GLOBAL_ACCOUNT = "$G"
SYSTEM_ACCOUNT = "$SYS"


class Subjects(msgspec.Struct, frozen=True):
    """Subjects allowed and denied. Those of subscriptions may be `subject queue`. allow None: all."""

    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()


class Responses(msgspec.Struct, frozen=True):
    """Leave to answer what was received: so many times, so many seconds long; below 0 without end."""

    max: int = 1
    expires: float = 120.0


class Permissions(msgspec.Struct, frozen=True):
    """What a user may publish and subscribe to."""

    publish: Subjects = Subjects()
    subscribe: Subjects = Subjects()
    responses: Responses | None = None

    @property
    def unlimited(self) -> bool:
        """Whether these permissions forbid nothing at all."""
        return self == Permissions()


@dataclass(frozen=True, slots=True)
class User:
    """A user with a name. `connection_types` empty: all."""

    name: str
    password: str = field(default="", repr=False)
    account: str = GLOBAL_ACCOUNT
    permissions: Permissions | None = None
    connection_types: frozenset[str] = frozenset()


class AccountLimits(msgspec.Struct, frozen=True):
    """Bounds of one account; below 0 there is none. `max_subscriptions` and `max_payload` bind each connection."""

    max_connections: int = -1
    max_subscriptions: int = -1
    max_payload: int = -1
    max_leafnodes: int = -1


class AccountJetStream(msgspec.Struct, frozen=True):
    """What an account may use of JetStream; below 0 without bound."""

    max_memory: int = -1
    max_store: int = -1
    max_streams: int = -1
    max_consumers: int = -1
    max_bytes_required: bool = False
    memory_max_stream_bytes: int = -1
    disk_max_stream_bytes: int = -1
    max_ack_pending: int = -1


class MessageTrace(msgspec.Struct, frozen=True):
    """Where the traces of sampled messages go, and of how many percent of them."""

    dest: str = ""
    sampling: int = 100


class Account(msgspec.Struct):
    """An account the file names. `jetstream` None: not enabled."""

    name: str
    users: list[User] = msgspec.field(default_factory=list)
    default_permissions: Permissions | None = None
    limits: AccountLimits = AccountLimits()
    jetstream: AccountJetStream | None = None
    mappings: list[Mapping] = msgspec.field(default_factory=list)
    trace: MessageTrace | None = None


@dataclass(slots=True)
class ClientAuthorization:
    """The top-level `authorization` block. `timeout`: seconds in which CONNECT must come, 0 = the default."""

    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    timeout: float = 0.0
    users: list[User] = field(default_factory=list)
    default_permissions: Permissions | None = None
