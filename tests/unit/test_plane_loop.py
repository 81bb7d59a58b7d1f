"""The loop of asyncio over the C loop: select() goes on by itself, and what asyncio has to do is done in time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from jscore_server.config.options import Options
from jscore_server.dataplane import Plane, PlaneLoop, PlaneSelector
from jscore_server.dataplane import selector as selector_module
from jscore_server.reload import plane_bounds

MANY = 1_000_000


class Turns:
    """Stands in for a Plane: nothing ever comes, and each poll ends at once as if an event had."""

    def __init__(self) -> None:
        self.waits: list[int] = []

    def watch(self, fd: int, mask: int) -> None:
        pass

    def poll(self, timeout_ns: int) -> list[tuple[int, int]]:
        self.waits.append(timeout_ns)
        assert len(self.waits) < MANY, "asyncio is never given its turn"
        return []


class Counted(PlaneSelector):
    """Counts how often asyncio asks."""

    asked = 0

    def select(self, timeout: float | None = None) -> Any:
        self.asked += 1
        return super().select(timeout)


def house(dispatch: Callable[[PlaneLoop, int], None]) -> tuple[Turns, Counted, PlaneLoop]:
    """`dispatch` gets the number of the turn, from 1."""
    turns = Turns()
    selector = Counted(turns)  # type: ignore[arg-type]
    loop = PlaneLoop(selector)

    def dispatched() -> bool:
        dispatch(loop, len(turns.waits))
        return False

    selector.dispatch = dispatched
    return turns, selector, loop


def test_events_alone_take_no_turn_of_asyncio() -> None:
    turns, selector, loop = house(lambda loop, turn: loop.stop() if turn == 500 else None)
    loop.run_forever()
    loop.close()
    assert (len(turns.waits), selector.asked) == (500, 1)


def test_what_an_event_asks_of_asyncio_is_done_at_once() -> None:
    ran: list[int] = []

    def dispatch(loop: PlaneLoop, turn: int) -> None:
        if turn in (3, 7):
            loop.call_soon(lambda: ran.append(len(turns.waits)))
        if turn == 9:
            loop.stop()

    turns, _, loop = house(dispatch)
    loop.run_forever()
    loop.close()
    assert ran == [3, 7]


def test_a_task_that_an_event_wakes_goes_on() -> None:
    def dispatch(loop: PlaneLoop, turn: int) -> None:
        if turn == 5:
            woken.set_result(turn)

    _, _, loop = house(dispatch)
    woken: asyncio.Future[int] = loop.create_future()

    async def wait() -> int:
        return await woken

    assert loop.run_until_complete(wait()) == 5
    loop.close()


def test_timers_come_whether_set_before_or_by_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    rang: list[tuple[str, int]] = []

    def ring(what: str) -> None:
        rang.append((what, len(turns.waits)))

    def dispatch(loop: PlaneLoop, turn: int) -> None:
        if turn == 5:
            loop.call_later(10e-3, ring, "of an event")

    turns, _, loop = house(dispatch)  # each turn takes a millisecond
    monkeypatch.setattr(selector_module, "monotonic_ns", lambda: 1_000_000 * len(turns.waits))
    monkeypatch.setattr(loop, "time", lambda: len(turns.waits) * 1e-3)
    loop.call_later(40e-3, loop.stop)
    loop.call_later(30e-3, ring, "from before")
    loop.run_forever()
    loop.close()
    assert [what for what, _ in rang] == ["of an event", "from before"]
    assert [turn for _, turn in rang] == pytest.approx([15, 30], abs=1)
    assert max(turns.waits) <= 30_000_000  # no wait goes beyond the next timer
    assert min(turns.waits) >= 0


def test_another_thread_wakes_it() -> None:
    plane = Plane(**plane_bounds(Options()))
    loop = PlaneLoop(PlaneSelector(plane))
    caller = threading.Thread(target=lambda: loop.call_soon_threadsafe(loop.stop))
    loop.call_soon(caller.start)
    loop.run_forever()
    caller.join()
    loop.close()
    plane.close()
