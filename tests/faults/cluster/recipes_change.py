"""Replicas that come and go while hosts die: F12-F14, and everything at once."""

from __future__ import annotations

import asyncio
import time

from jscore_server.demo import ApiError, NatsError, api, connect, eventually

from tests.faults.cluster.recipes_crash import power_cut
from tests.faults.cluster.recipes_damage import data_files, flip
from tests.faults.cluster.recipes_disk import fill
from tests.faults.cluster.recipes_network import KINDS, cut
from tests.faults.cluster.trial import STREAM, Trial, fault


@fault("F12", "one replica becomes three or five, its holder dies at once", "lost 0, back with the holder in 5 s",
       hosts=5, replicas=1)  # fmt: skip
async def scale_and_kill(t: Trial) -> None:
    async with t.load(rate=6000):
        await t.more(int(20000 * t.scale), 120)
    holder = await t.leader()
    await t.update(3 if t.round % 2 else 5)
    await asyncio.sleep(t.rng.uniform(0.045, 0.055))  # the moment of the death is the fault
    holder.kill()
    async with t.load():
        await t.run(8)
        holder.start()
        at = time.monotonic()
        await t.more(200)
        t.within("acknowledges again after", time.monotonic() - at, 5)


@fault("F13", "random 1/3/5 replicas, step-downs and kills", "lost 0, moved 0", hosts=5, replicas=3, seconds=500)
async def membership_loop(t: Trial) -> None:
    down: set[str] = set()
    async with t.load():
        until = time.monotonic() + 60 * t.scale
        changes = kills = 0
        while time.monotonic() < until:
            what = t.rng.choice(("scale", "scale", "step down", "kill"))
            try:
                if what == "scale":
                    config = (await t.info())["config"]
                    config["num_replicas"] = t.rng.choice((1, 3, 5))
                    await api(t.client, f"STREAM.UPDATE.{STREAM}", config, seconds=3)
                    changes += 1
                elif what == "step down":
                    await api(t.client, f"STREAM.LEADER.STEPDOWN.{STREAM}", seconds=2)
                else:
                    host = t.rng.choice([h for h in t.hosts if h.name not in down])
                    host.kill()
                    kills += 1
                    await asyncio.sleep(t.rng.uniform(0, 3))
                    host.start()
            except (TimeoutError, NatsError, ApiError) as err:
                t.note(f"{what}: {err!r}")
            await asyncio.sleep(t.rng.uniform(0, 2))
        t.tell(f"{changes} changes, {kills} kills")
        await t.update(3, 60)
        await t.more(200)


@fault(
    "F14", "a host removed, emptied, back by a new name, with kills", "lost 0, live 10 s later", hosts=5, seconds=400
)
async def replace_host(t: Trial) -> None:
    system = await connect(t.hosts.urls, user="sys", password="sys")
    try:
        async with t.load():
            for number in range(2):
                await t.run(3)
                gone = await t.follower()
                gone.kill()
                away = gone.name

                async def removed(away: str = away) -> bool:
                    await api(system, "SERVER.REMOVE", {"peer": away}, seconds=5)
                    return True

                await eventually(removed, 30, f"{away} removed")
                other = t.rng.choice([h for h in t.hosts if h is not gone])
                other.kill()
                gone.wipe()
                gone.name = f"{away}x{number}"
                t.hosts.write(gone)
                gone.start()
                other.start()
                await t.up()
                at = time.monotonic()
                await t.current(60)
                t.within(f"{gone.name} for {away}, whole after", time.monotonic() - at, 10)
                await t.more(200)
    finally:
        await system.close()


@fault("random", "anything in any order: kill, pause, partition, wipe, flip, full disk, scale", "lost 0, moved 0",
       hosts=5, replicas=5, network=True, disk="ext4", seconds=600)  # fmt: skip
async def anything(t: Trial) -> None:
    """Never more than two of five hosts are harmed at once, and never two lose data before the first is whole again."""
    assert t.network is not None
    harmless = ["kill", "kill all", "pause", "part", "step down", "scale", "full"]
    async with t.load():
        until = time.monotonic() + 90 * t.scale
        while time.monotonic() < until:
            what = t.rng.choice([*harmless, "wipe", "flip", "power"])
            host = t.rng.choice(list(t.hosts))
            t.note(f"{what}: {host.name}")
            try:
                if what in ("wipe", "flip"):
                    await t.update(5, 30)
                    await t.current(60)
                match what:
                    case "kill":
                        host.kill()
                        await asyncio.sleep(t.rng.uniform(0, 3))
                    case "kill all":
                        t.hosts.kill()
                    case "pause":
                        host.pause()
                        await asyncio.sleep(t.rng.uniform(0, 6))
                        host.resume()
                    case "part":
                        await cut(t, t.rng.choice(KINDS))
                        await asyncio.sleep(t.rng.uniform(1, 6))
                        t.network.heal()
                    case "step down":
                        await api(t.client, f"STREAM.LEADER.STEPDOWN.{STREAM}", seconds=2)
                    case "scale":
                        config = (await t.info())["config"]
                        config["num_replicas"] = t.rng.choice((3, 5))
                        await api(t.client, f"STREAM.UPDATE.{STREAM}", config, seconds=3)
                    case "full":
                        ballast = await asyncio.to_thread(fill, host)
                        await asyncio.sleep(t.rng.uniform(1, 4))
                        ballast.unlink()
                    case "wipe":
                        host.kill()
                        host.wipe()
                    case "flip":
                        host.kill()
                        files = data_files(t, host)
                        if files:
                            t.note(flip(t, files[0]))
                    case "power":
                        await power_cut(t, [host] if t.rng.random() < 0.5 else list(t.hosts))
                t.hosts.start()
                if what in ("wipe", "flip"):
                    await t.current(60)
            except (TimeoutError, NatsError, ApiError) as err:
                t.note(f"{what}: {err!r}")
                t.network.heal()
                t.hosts.start()
            await asyncio.sleep(t.rng.uniform(0, 2))
        await t.update(5, 60)
        await t.more(100)
