"""Hosts that hear each other late, or not at all: F19, F20, F33."""

from __future__ import annotations

import time

from tests.faults.cluster.hosts import rss
from tests.faults.cluster.trial import Trial, fault


async def cut(t: Trial, kind: str) -> None:
    assert t.network is not None
    leader = (await t.leader()).number
    everyone = [h.number for h in t.hosts]
    others = [n for n in everyone if n != leader]
    t.note(f"{kind}, n{leader} leads")
    match kind:
        case "the leader alone":
            t.network.part([leader], others)
        case "a follower alone":
            t.network.part([others[0]], [n for n in everyone if n != others[0]])
        case "leader with a minority":
            t.network.part([leader, others[0]], others[1:])
        case "ring":
            for i, a in enumerate(everyone):
                for j, b in enumerate(everyone):
                    if a < b and (j - i) % len(everyone) not in (1, len(everyone) - 1):
                        t.network.part([a], [b])
        case "the leader is not heard":
            for n in others:
                t.network.cut(leader, n)
        case "the leader does not hear":
            for n in others:
                t.network.cut(n, leader)


KINDS = ["the leader alone", "a follower alone", "leader with a minority", "ring", "the leader is not heard",
         "the leader does not hear"]  # fmt: skip


@fault("F19", "partitions, one-way ones too, between namespaces", "lost 0, gap 2 s", hosts=5, replicas=5, network=True)
async def partitions(t: Trial) -> None:
    assert t.network is not None
    async with t.load():
        for kind in t.rng.sample(KINDS, 3):
            await t.run(3)
            at = time.monotonic()
            await cut(t, kind)
            await t.run(8)
            t.within(f"gap ({kind})", t.journal.gap(at), 4)
            t.network.heal()
            await t.more(200)


@fault("F20", "100 +- 50 ms each way between hosts, one in a hundred pieces held up 300 ms more",
       "no election, throughput degrades smoothly", delayed=True)  # fmt: skip
async def long_way(t: Trial) -> None:
    async with t.load():
        await t.more(200)
        leader, before = await t.leader(), (await t.info())["cluster"].get("leader_since")
        count, at = len(t.journal.times), time.monotonic()
        await t.run(30)
        rate = (len(t.journal.times) - count) / (time.monotonic() - at)
        t.must((await t.leader()) is leader, "leadership moved")
        t.must((await t.info())["cluster"].get("leader_since") == before, "the leader was elected again")
        t.tell(f"{rate:.0f}/s, longest time without an acknowledgement {t.journal.gap(at):.2f} s")
        t.must(t.journal.gap(at) < 2, f"{t.journal.gap(at):.2f} s without an acknowledgement")


@fault("F33", "a follower that takes nothing from its link", "memory bounded, no loss")
async def slow_follower(t: Trial) -> None:
    async with t.load(rate=6000):
        await t.run(3)
        host, leader = await t.follower(), await t.leader()
        before = rss(leader)
        host.pause()
        await t.run(20)
        grown = rss(leader) - before
        t.tell(f"the leader grew by {grown >> 20} MiB")
        t.must(grown < 256 << 20, f"the leader grew by {grown >> 20} MiB")
        host.resume()
        await t.more(200)
