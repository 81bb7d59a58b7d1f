"""What peers say of addresses never ends the dialling of others."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from jscore_server.cluster import routes
from jscore_server.cluster.dial import dial
from jscore_server.cluster.routes import Routes, Settings, Target


@pytest.mark.parametrize("address", [("127.0.0.1", 1 << 70), ("a" * 70 + ".example", 6222)])
def test_an_impossible_address_is_an_error_like_any_other(address: tuple[str, int]) -> None:
    with pytest.raises(OSError, match="dial tcp "):
        asyncio.run(dial(*address))


def test_servers_that_came_and_went_leave_room_for_new_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    dialled: list[tuple[str, int]] = []

    async def gives_up(self: Routes, target: Target) -> None:
        dialled.append(target.address)

    monkeypatch.setattr(routes, "GOSSIP_PEERS_MAX", 4)
    monkeypatch.setattr(Routes, "_keep", gives_up)

    async def play() -> None:
        anything: Any = SimpleNamespace(server_id="ME")
        known = Routes(
            anything,
            anything,
            anything,
            listening=("127.0.0.1", 1),
            link=None,
            settings=Settings(explicit=()),
            callbacks=anything,
        )
        for number in range(10):
            known._gossip_heard(f"S{number}", {"ip": f"nats-route://10.0.0.{number}:6222/"})
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    asyncio.run(play())
    assert len(dialled) == 10
