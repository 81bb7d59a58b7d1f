"""Disks that are full, slow or gone: F22-F26."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path

from jscore_server.demo import ApiError, NatsError, api, eventually

from tests.faults.cluster.hosts import Host
from tests.faults.cluster.trial import STREAM, Skipped, Trial, fault
from tests.faults.disks import Disk, run

BLKIO = Path("/sys/fs/cgroup/blkio")


def fill(host: Host) -> Path:
    """All that is left of its disk is taken by a file."""
    path = host.store / "ballast"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(1 << 16)):
            pass
    return path


async def full(t: Trial, host: Host, demand: float) -> None:
    async with t.load():
        await t.run(3)
        ballast = fill(host)
        at = time.monotonic()
        await t.run(8)
        t.within("gap", t.journal.gap(at), demand)
        ballast.unlink()
        at = time.monotonic()
        await t.more(200)
    await t.current(30)
    await t.healthy()
    t.within("resumed after", time.monotonic() - at, 10)


@fault("F22", "a full disk at a follower", "lost 0, goes on; resumes by itself in 10 s", disk="tmpfs")
async def full_follower(t: Trial) -> None:
    await full(t, await t.follower(), 1)


@fault("F23", "a full disk at the leader", "lost 0, gap 1 s; resumes by itself", disk="tmpfs")
async def full_leader(t: Trial) -> None:
    await full(t, await t.leader(), 1)


async def spare(t: Trial) -> None:
    """A stream of some 3 MB on each host, which nobody will miss."""
    await api(t.client, "STREAM.CREATE.SPARE", {"name": "SPARE", "subjects": ["spare"], "num_replicas": 3})
    for _ in range(100):
        await asyncio.gather(*(t.client.request("spare", bytes(1000), 10) for _ in range(30)))


@fault("F24", "full disks at all", "refused with an error, reads work; deletion, or space, makes it write again",
       disk="tmpfs")  # fmt: skip
async def full_all(t: Trial) -> None:
    await spare(t)
    async with t.load():
        await t.run(3)
        ballast = [fill(host) for host in t.hosts]

        async def used_up() -> bool:
            return time.monotonic() - t.journal.times[-1] > 1  # what was reserved before takes some more

        await eventually(used_up, 30, "no more acknowledgements")
        before = len(t.journal.times)
        await t.run(3)
        t.must(len(t.journal.times) == before, "acknowledged with every disk full")
        try:
            await eventually(
                lambda: api(t.client, f"STREAM.MSG.GET.{STREAM}", {"seq": 1}, seconds=2), 10, "a read with full disks"
            )
        except TimeoutError as err:
            t.must(False, str(err))
        t.tell(f"{len(t.journal.refused)} refused with an error")
        at = time.monotonic()
        try:
            await api(t.client, "STREAM.DELETE.SPARE", seconds=10)
            await t.more(200, 30)
            t.within("writes again after a stream's deletion", time.monotonic() - at, 10)
        except (TimeoutError, ApiError) as err:
            t.must(False, f"deleted with full disks: {err!r}")
        for path in ballast:
            path.unlink()
        at = time.monotonic()
        await t.more(200)
        t.within("with more space after", time.monotonic() - at, 10)


@fault("F25", "a slow disk at the leader", "leader moves in 5 s, rate 80 %", disk="ext4")
async def slow_disk(t: Trial) -> None:
    """1 MB/s and 50 writes a second; in odd rounds 128 KB/s and 4, with which a sync takes a second."""
    speed, writes = (131072, 4) if t.round % 2 else (1048576, 50)
    if not (BLKIO / "blkio.throttle.write_iops_device").exists():
        raise Skipped("no blkio cgroup with throttling here")
    group = BLKIO / f"faults{os.getpid()}"
    async with t.load():
        at = time.monotonic()
        await t.run(3)
        usual = len(t.journal.times) / (time.monotonic() - at)
        leader = await t.leader()
        assert isinstance(leader.disk, Disk)
        listed = await asyncio.to_thread(run, "losetup", "-j", str(leader.disk.image), "-n", "-O", "MAJ:MIN")
        device = listed.stdout.strip()
        if not device:
            raise Skipped("the loop device of the image is not known")
        group.mkdir()
        try:
            (group / "blkio.throttle.write_bps_device").write_text(f"{device} {speed}")
            (group / "blkio.throttle.write_iops_device").write_text(f"{device} {writes}")
            (group / "cgroup.procs").write_text(str(leader.pid))
            before, at = len(t.journal.times), time.monotonic()
            moved = 0.0
            while time.monotonic() - at < 16 * t.scale:
                with contextlib.suppress(TimeoutError, NatsError, ApiError):
                    if not moved and (await t.leader(2)) is not leader:
                        moved = time.monotonic() - at
                await asyncio.sleep(0.2)
            rate = (len(t.journal.times) - before) / (time.monotonic() - at)
            if not moved or moved > 5:
                t.slow.append("leadership did not move in 5 s")
            if rate < 0.8 * usual:
                t.slow.append(f"{rate:.0f}/s of {usual:.0f}/s")
            went = f"moved after {moved:.1f} s" if moved else "stayed"
            t.tell(f"{writes} writes a second: {rate:.0f}/s of {usual:.0f}/s; leadership {went}")
        finally:
            (BLKIO / "cgroup.procs").write_text(str(leader.pid))
            group.rmdir()


@fault("F26", "a disk that dies under a running server", "no acknowledgement by it, the rest goes on", disk="ext4")
async def dead_disk(t: Trial) -> None:
    async with t.load():
        await t.run(3)
        host = await t.leader() if t.round % 2 else await t.follower()
        t.journal.void = True
        host.power_cut()
        await asyncio.sleep(0.2)
        t.journal.void = False
        at = time.monotonic()
        await t.run(8)
        t.within("gap", t.journal.gap(at), 5)
        host.after_power_cut()
        host.start()
        await t.up([host])
        await t.more(200)
