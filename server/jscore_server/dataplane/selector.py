"""asyncio's selector whose wait is the C loop: data connections are served inside select() and never reach Python.

A turn of asyncio's loop costs as much as handling a small event, and the replication of one message takes several
events of several servers, one after the other. So select() goes on by itself until asyncio has something to do.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Mapping
from contextvars import Context
from time import monotonic_ns
from typing import Any

from jscore_server.dataplane._plane import Plane

EPOLLIN = 0x001
EPOLLOUT = 0x004
EPOLLERR_HUP = 0x018
NANOSECOND = 1_000_000_000


class PlaneSelector(selectors.BaseSelector):
    """A selector over a Plane: `select` runs the C loop without the GIL until a registered descriptor is ready, an
    event waits or the time is over; waiting events are dispatched before it returns.
    """

    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._keys: dict[int, selectors.SelectorKey] = {}
        self.dispatch: Callable[[], bool] = lambda: False  # set by the server: handles events, True when more wait
        self.wanted = True  # asyncio was asked for something since select() began; a PlaneLoop says so
        self.stays = False  # there is one that does

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        if fd in self._keys:
            raise KeyError(f"descriptor {fd} is already registered")
        key = selectors.SelectorKey(fileobj, fd, events, data)
        self._plane.watch(fd, _mask(events))
        self._keys[fd] = key
        return key

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        old = self._keys[fd]
        if events != old.events:
            self._plane.watch(fd, _mask(events))
        key = selectors.SelectorKey(fileobj, fd, events, data)
        self._keys[fd] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        key = self._keys.pop(fd)
        self._plane.watch(fd, 0)
        return key

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        wait_ns = -1 if timeout is None else max(0, int(timeout * NANOSECOND))
        if not self.stays:
            return self._turn(wait_ns)
        end = monotonic_ns() + wait_ns if wait_ns > 0 else 0
        self.wanted = False
        while True:
            ready = self._turn(wait_ns)
            if ready or self.wanted or wait_ns == 0:
                return ready
            if end:
                wait_ns = max(0, end - monotonic_ns())

    def _turn(self, wait_ns: int) -> list[tuple[selectors.SelectorKey, int]]:
        ready = []
        for fd, mask in self._plane.poll(wait_ns):
            key = self._keys.get(fd)
            if key is None:
                continue
            events = 0
            if mask & (EPOLLIN | EPOLLERR_HUP):
                events |= selectors.EVENT_READ
            if mask & (EPOLLOUT | EPOLLERR_HUP):
                events |= selectors.EVENT_WRITE
            if events & key.events:
                ready.append((key, events & key.events))
        self.dispatch()
        return ready

    def close(self) -> None:
        self._keys.clear()

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


class PlaneLoop(asyncio.SelectorEventLoop):
    """asyncio's loop over a PlaneSelector: it says when there is something to do beside the C loop."""

    def __init__(self, selector: PlaneSelector) -> None:
        self._plane_selector = selector
        super().__init__(selector)
        selector.stays = True

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        self._plane_selector.wanted = True
        return super().call_soon(callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        self._plane_selector.wanted = True
        return super().call_at(when, callback, *args, context=context)

    def stop(self) -> None:
        self._plane_selector.wanted = True
        super().stop()


def _mask(events: int) -> int:
    return (EPOLLIN if events & selectors.EVENT_READ else 0) | (EPOLLOUT if events & selectors.EVENT_WRITE else 0)
