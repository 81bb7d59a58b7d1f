"""What accounts may store: told to the data plane, with what streams led by other servers take of it.

A stream's leader counts the stream for all of its replicas (csrc/stream/usage.c). In a cluster the leaders tell
each other once a second, while some account has a bound: by that much a bound can be overrun.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jscore_server.jetstream.engine import JetStream
    from jscore_server.jetstream.gather import Gathered

ASK_SECONDS = 1.0


class Quotas:
    """Keeps the data plane's quotas for one server."""

    def __init__(self, engine: JetStream) -> None:
        self._engine = engine
        self._told: set[str] = set()
        self._asking = False

    def start(self) -> None:
        """Tells the plane the limits of now; again when they have changed."""
        engine = self._engine
        bound = self._bound()
        for account in self._told - set(bound):
            engine.plane.quota(account, -1, -1)
        self._told = set(bound)
        for account in bound:
            self._tell(account, 0, 0)
        if bound and engine.clustered and not self._asking:
            self._asking = True
            engine.after(ASK_SECONDS, self._ask)

    def _bound(self) -> list[str]:
        """Accounts with a bound on bytes."""
        found = []
        for name, limits in self._engine.accounts.items():
            if limits is not None and (limits.max_memory >= 0 or limits.max_storage >= 0):
                found.append(name)
        return found

    def _tell(self, account: str, memory: int, storage: int) -> None:
        limits = self._engine.account_limits(account)
        self._engine.plane.quota(
            account, limits.max_memory, limits.max_storage, elsewhere_memory=memory, elsewhere_storage=storage
        )

    def _ask(self) -> None:
        bound = self._bound()
        self._asking = bool(bound)
        for account in bound:
            self._engine.gather.ask(account, (), partial(self._told_by_others, account), usage=True)
        if bound:
            self._engine.after(ASK_SECONDS, self._ask)

    def _told_by_others(self, account: str, found: Gathered) -> None:
        if account in self._told and not found.silent:  # of who is silent what was known before stays
            self._tell(account, found.usage.led_memory, found.usage.led_storage)
