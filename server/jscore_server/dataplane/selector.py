"""asyncio's selector whose wait is the C loop: data connections are served inside select() and never reach Python."""

from __future__ import annotations

import selectors
from collections.abc import Callable, Mapping
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


def _mask(events: int) -> int:
    return (EPOLLIN if events & selectors.EVENT_READ else 0) | (EPOLLOUT if events & selectors.EVENT_WRITE else 0)
