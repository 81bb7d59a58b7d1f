"""Kills, pauses, power cuts, restarts: F1-F3, F17, F18, F27-F31."""

from __future__ import annotations

import asyncio
import base64
import signal
import time

from jscore_server.demo import ApiError, NatsError, api, connect, eventually

from tests.faults.cluster.hosts import Host
from tests.faults.cluster.trial import STREAM, Trial, fault


@fault("F1", "SIGKILL of all", "lost 0, ready in 5 s")
async def kill_all(t: Trial) -> None:
    async with t.load():
        await t.run(6)
        for _ in range(2):
            t.hosts.kill()
            t.hosts.start()
            at = time.monotonic()
            await t.more(200)
            t.within("acknowledges again after", time.monotonic() - at, 5)
            await t.run(3)


async def power_cut(t: Trial, hosts: list[Host]) -> None:
    """The plug of these hosts. What is acknowledged while it is pulled promises nothing: see History.take."""
    t.journal.void = True
    for host in hosts:
        host.power_cut()
    for host in hosts:
        if host.process is not None:
            host.process.kill()
    for host in hosts:
        host.after_power_cut()
    await asyncio.sleep(0.2)
    t.journal.void = False


@fault("F2", "power cut of all", "lost 0, live again in 10 s", disk="ext4")
async def power_cut_of_all(t: Trial) -> None:
    async with t.load():
        for _ in range(2):
            await t.run(t.rng.uniform(3, 8))
            await power_cut(t, list(t.hosts))
            t.hosts.start()
            at = time.monotonic()
            await t.more(200)
            t.within("acknowledges again after", time.monotonic() - at, 10)


@fault("F3", "power cut of one while another is paused, then only those two", "lost 0, one history", disk="ext4")
async def power_cut_and_pauses(t: Trial) -> None:
    behind = await t.follower()
    others = [h for h in t.hosts if h is not behind]  # or all three publishers sit at the one that is paused
    async with t.load(others):
        await t.run(3)
        await t.ask(others)
        behind.pause()
        await t.more(500)
        await t.run(2)
        leader = await t.leader()
        names = {h.name for h in t.hosts} - {behind.name}
        cut = t.hosts[t.rng.choice(sorted(names))]
        kept = next(h for h in t.hosts if h.name in names and h is not cut)
        t.note(f"{behind.name} behind, {cut.name} loses power, {kept.name} is paused ({leader.name} leads)")
        await power_cut(t, [cut])
        kept.pause()
        behind.resume()
        cut.start()
        before = len(t.journal.times)
        await t.run(15)
        t.note(f"{len(t.journal.times) - before} acknowledged by the two without {kept.name}")
        kept.resume()
        await t.more(200)


@fault("F17", "the leader stopped by SIGSTOP, then continued", "gap 2 s, no stale read by MSG.GET")
async def pause_leader(t: Trial) -> None:
    async with t.load():
        await t.run(3)
        leader = await t.leader()
        at = time.monotonic()
        leader.pause()
        others = [h for h in t.hosts if h is not leader]
        client = await connect([h.url for h in others])
        await t.run(12)
        t.within("gap", t.journal.gap(at), 2)
        stale = 0
        here = await connect(leader.url, allow_reconnect=False) if not leader.paused else None
        newest = max(t.journal.acked.values(), default=0)
        leader.resume()
        here = await connect(leader.url)
        for _ in range(40):
            try:
                got = await api(here, f"STREAM.MSG.GET.{STREAM}", {"last_by_subj": "f.0"}, seconds=1)
                low = base64.b64decode(got["message"]["data"]).decode().split(" ")[0]
                known = [s for text, s in t.journal.acked.items() if text.startswith("0.") and s <= newest]
                stale += t.journal.acked.get(low, newest) < max(known, default=0)
            except (TimeoutError, NatsError, ApiError):
                """No answer is not a stale one."""
        t.must(stale == 0, f"{stale} of 40 reads by MSG.GET were older than what was acknowledged before")
        await here.close()
        await client.close()
        await t.more(200)


@fault("F18", "SIGKILL of the leader", "gap 1 s")
async def kill_leader(t: Trial) -> None:
    async with t.load():
        for _ in range(3):
            await t.run(3)
            leader = await t.leader()
            at = time.monotonic()
            leader.kill()
            await t.run(6)
            t.within("gap", t.journal.gap(at), 1)
            leader.start()
            await t.up([leader])
            await t.current()


@fault("F27", "no quorum: what each request answers", "an answer or an error to each, writes refused")
async def no_quorum(t: Trial) -> None:
    async with t.load():
        await t.more(1000)
    leader = await t.leader()
    for host in t.hosts:
        if host is not leader:
            host.kill()
    await asyncio.sleep(6)
    client = await connect(leader.url)
    try:
        for name, subject, body in (
            ("publish", "f.0", b"nobody keeps this"),
            ("account info", "$JS.API.INFO", b""),
            ("stream info", f"$JS.API.STREAM.INFO.{STREAM}", b""),
            ("stream create", "$JS.API.STREAM.CREATE.X", b'{"name":"X","subjects":["x"]}'),
            ("get", f"$JS.API.STREAM.MSG.GET.{STREAM}", b'{"seq":1}'),
        ):
            if name == "publish":
                t.journal.sent.add("nobody")
            try:
                at = time.monotonic()
                answer = await client.request(subject, body, timeout=12)
                text = answer.data[:160].decode()
                t.note(f"{name}: {text} after {time.monotonic() - at:.2f} s")
                t.must(name != "publish" or "error" in text, "a publish was acknowledged without a quorum")
                t.must(name != "stream create" or "error" in text, "a stream was created without a quorum")
            except (TimeoutError, NatsError) as err:
                t.tell(f"{name}: {type(err).__name__}")
    finally:
        await client.close()


@fault("F28", "step-down, then lame duck, of the leader", "gap 50 ms, 100 ms")
async def leave(t: Trial) -> None:
    async with t.load():
        for _ in range(5):
            await t.run(1.5)
            at = time.monotonic()
            await api(t.client, f"STREAM.LEADER.STEPDOWN.{STREAM}")
            await t.run(1)
            t.within("step-down gap", t.journal.gap(at), 0.05)
        leader = await t.leader()
        away = [h for h in t.hosts if h is not leader]
    async with t.load(away):
        await t.run(1)
        at = time.monotonic()
        leader.process.send_signal(signal.SIGUSR2)  # type: ignore[union-attr]
        await t.run(5)
        t.within("lame duck gap", t.journal.gap(at), 0.1)
        leader.stop(60)
        leader.start()
        await t.up([leader])


@fault("F29", "rolling restart: lame duck, stop, start, healthz, each in turn", "lost 0, gap 1 s each")
async def rolling(t: Trial) -> None:
    async with t.load():
        for host in t.hosts:
            await t.run(2)
            at = time.monotonic()
            host.process.send_signal(signal.SIGUSR2)  # type: ignore[union-attr]
            await t.run(3)
            await asyncio.to_thread(host.stop, 5)
            host.start()
            await t.up([host])
            await t.current()
            await t.healthy()
            t.within(f"{host.name} gap", t.journal.gap(at), 1)


@fault("F30", "restart storm: a random host killed each 0.5-2 s", "lost 0", seconds=400)
async def storm(t: Trial) -> None:
    async with t.load():
        until = time.monotonic() + 40 * t.scale
        kills = 0
        while time.monotonic() < until:
            host = t.rng.choice(list(t.hosts))
            host.kill()
            await asyncio.sleep(t.rng.uniform(0, 0.5))
            host.start()
            kills += 1
            await asyncio.sleep(t.rng.uniform(0.5, 2))
        t.tell(f"{kills} kills")
        await t.more(100)


@fault("F31", "a host down under load comes back", "caught up at twice the rate of ingest, foreground 70 %")
async def catch_up(t: Trial) -> None:
    async with t.load():
        await t.run(3)
        host = await t.follower()
        host.kill()
        before, at = len(t.journal.times), time.monotonic()
        await t.run(20)
        missed, rate = len(t.journal.times) - before, (len(t.journal.times) - before) / (time.monotonic() - at)
        host.start()
        before, at = len(t.journal.times), time.monotonic()

        async def near() -> bool:
            replicas = (await t.info())["cluster"].get("replicas", [])
            return any(r["name"] == host.name and r.get("current") and r.get("lag", 0) < 500 for r in replicas)

        await eventually(near, 60, "the host caught up")
        took = time.monotonic() - at
        during = (len(t.journal.times) - before) / took
        t.tell(f"missed {missed}, caught up in {took:.1f} s, {during / max(rate, 1):.0%} of the rate meanwhile")
