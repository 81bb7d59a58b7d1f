"""The system account of a cluster: its users see every server, and nobody else sees anything."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import nats
import pytest
from harness import Lab, eventually, nats_cli, run
from monitoring_client import NAMES, SYSTEM, Three, ask, page

USERS = """
accounts {
  A { users: [{ user: a, password: a }] }
  B { users: [{ user: b, password: b }] }
  $SYS { users: [{ user: sys, password: sys }] }
}
"""


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Three]:
    lab = Lab(tmp_path_factory.mktemp("three"))
    try:
        cluster = Three(lab, USERS)
        cluster.wait()
        yield cluster
    finally:
        lab.close()


def test_every_server_answers_and_filters_choose(three: Three) -> None:
    async def work() -> None:
        system = await nats.connect(three.url, **SYSTEM)
        answers = await ask(system, "$SYS.REQ.SERVER.PING", answers=3, seconds=5)
        assert sorted(body["server"]["name"] for _, body in answers) == list(NAMES)
        assert all(body["server"]["cluster"] == "C" and body["server"]["jetstream"] for _, body in answers)
        for wanted in (b'{"server_name":"n2"}', b'{"tags":["name:n2"]}', b'{"server_name":"n2","exact_match":true}'):
            answers = await ask(system, "$SYS.REQ.SERVER.PING.VARZ", wanted, answers=3)
            assert [body["data"]["server_name"] for _, body in answers] == ["n2"]
        (leader,) = await ask(system, "$SYS.REQ.SERVER.PING.JSZ", b'{"leader_only":true}', answers=3)
        assert leader[1]["data"]["meta_cluster"]["leader"] == leader[1]["server"]["name"]
        await system.close()

    run(work())


def test_one_server_is_asked_by_its_id_from_another(three: Three) -> None:
    async def work() -> None:
        system = await nats.connect(three.url, **SYSTEM)
        there = page(three.http[2], "/varz")["server_id"]
        ((_, body),) = await ask(system, f"$SYS.REQ.SERVER.{there}.VARZ", answers=2)
        assert body["data"]["server_name"] == "n3"
        assert (await ask(system, f"$SYS.REQ.SERVER.{there}.NOTHING"))[0][0]["Status"] == "503"
        await system.close()

    run(work())


def test_who_is_no_system_user_sees_its_own_account_only(three: Three) -> None:
    async def work() -> None:
        a = await nats.connect(three.url, user="a", password="a", name="mine")
        b = await nats.connect(three.servers[1].url, user="b", password="b", name="theirs")
        spied: list[str] = []

        async def heard(msg: Any) -> None:
            spied.append(msg.subject)

        for subject in ("SERVER.PING", "SERVER.PING.VARZ", "ACCOUNT.B.CONNZ", "ACCOUNT.B.INFO"):
            ((headers, _),) = await ask(a, f"$SYS.REQ.{subject}")
            assert headers["Status"] == "503", subject
        await a.subscribe("$SYS.>", cb=heard)
        await a.flush()
        found = await ask(a, "$SYS.REQ.SERVER.PING.CONNZ", b'{"acc":"B","auth":true}', answers=3)
        names = [c["name"] for _, body in found for c in body["data"]["connections"] or ()]
        assert names == ["mine"]
        await b.publish("x", b"1")
        await b.close()
        await a.flush()
        assert not [subject for subject in spied if not subject.startswith("$SYS.REQ.")]
        await a.close()

    run(work())


def test_events_of_one_server_are_heard_at_another(three: Three) -> None:
    async def work() -> None:
        system = await nats.connect(three.servers[2].url, **SYSTEM)
        events: asyncio.Queue[Any] = asyncio.Queue()
        await system.subscribe("$SYS.ACCOUNT.A.*", cb=events.put)
        await system.flush()

        async def heard_there() -> bool:
            subs = page(three.http[0], "/subsz?subs=1&acc=$SYS&test=$SYS.ACCOUNT.A.CONNECT")
            return subs["total"] > 0

        await eventually(heard_there, 10, "the subscription is known at the other server")
        client = await nats.connect(three.url, user="a", password="a", name="passing")
        await client.publish("x", b"12345")
        await client.close()
        for kind in ("connect", "disconnect"):
            msg = await asyncio.wait_for(events.get(), 10)
            body = json.loads(msg.data)
            assert body["type"] == f"io.nats.server.advisory.v1.client_{kind}"
            assert body["server"]["name"] == "n1"
            assert (body["client"]["name"], body["client"]["user"], body["client"]["acc"]) == ("passing", "a", "A")
        assert body["reason"] in ("Client Closed", "Read Error")  # a reset, when something was unread
        assert body["sent"] == {"msgs": 1, "bytes": 5}
        await system.close()

    run(work())


def test_connections_of_an_account_are_counted_over_the_cluster(three: Three) -> None:
    async def work() -> None:
        clients = [await nats.connect(s.url, user="b", password="b") for s in three.servers[:2]]

        async def both() -> bool:
            return all(
                [a["total_conns"] for a in page(port, "/accstatz?unused=1")["account_statz"] if a["acc"] == "B"] == [2]
                for port in three.http
            )

        await eventually(both, 10, "every server knows of both connections")
        for client in clients:
            await client.close()

        async def none() -> bool:
            return all(
                [a["total_conns"] for a in page(port, "/accstatz?unused=1")["account_statz"] if a["acc"] == "B"] == [0]
                for port in three.http
            )

        await eventually(none, 10, "every server knows that they are gone")

    run(work())


def test_subscribers_are_counted_over_the_cluster(three: Three) -> None:
    async def work() -> None:
        watchers = [await nats.connect(s.url, **SYSTEM) for s in three.servers]
        for watcher in watchers:
            await watcher.subscribe("counted.*", queue="q")
            await watcher.flush()
        await watchers[0].subscribe("counted.x")
        await watchers[0].flush()

        async def counted(body: bytes, wanted: int) -> bool:
            ((_, found),) = await ask(watchers[0], "$SYS.DEBUG.SUBSCRIBERS", body, seconds=5)
            return bool(found == wanted)

        await eventually(lambda: counted(b"counted.x", 4), 15, "four of them")
        await eventually(lambda: counted(b"counted.x q", 3), 15, "three in the group")
        for watcher in watchers:
            await watcher.close()

    run(work())


def test_a_client_is_kicked_and_another_sent_away(three: Three) -> None:
    async def work() -> None:
        system = await nats.connect(three.url, **SYSTEM)
        varz = page(three.http[1], "/varz")
        gone = asyncio.Event()

        async def closed() -> None:
            gone.set()

        client = await nats.connect(
            three.servers[1].url, user="a", password="a", name="target", allow_reconnect=False, closed_cb=closed
        )
        (cid,) = [c["cid"] for c in page(three.http[1], "/connz")["connections"] if c.get("name") == "target"]
        request = json.dumps({"cid": cid}).encode()
        ((_, sent),) = await ask(system, f"$SYS.REQ.SERVER.{varz['server_id']}.LDM", request)
        assert "error" not in sent
        ((_, kicked),) = await ask(system, f"$SYS.REQ.SERVER.{varz['server_id']}.KICK", request)
        assert "error" not in kicked
        await asyncio.wait_for(gone.wait(), 10)
        (left,) = page(three.http[1], f"/connz?state=closed&cid={cid}&auth=1")["connections"]
        assert (left["reason"], left["authorized_user"], left["account"]) == ("Kicked", "a", "A")
        assert client.is_closed
        await system.close()

    run(work())


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (("server", "ls"), NAMES),
        (("server", "ping", "3"), NAMES),
        (("server", "info", "n2"), ("n2", "Tags")),
        (("server", "report", "connections"), ("n1", "$SYS")),
        (("server", "report", "accounts"), ("$SYS",)),
        (("server", "report", "jetstream"), (*NAMES, "RAFT Meta Group")),
        (("server", "report", "health"), (*NAMES, "ok: 3 / err: 0")),
        (("server", "report", "routes"), NAMES),
        (("server", "report", "cpu"), NAMES),
        (("server", "report", "mem"), NAMES),
        (("server", "report", "gateways"), NAMES),
        (("server", "report", "leafnodes"), ("Leafnode Report",)),
        (("server", "check", "connection"), ("OK",)),
        (("server", "check", "server", "--name", "n3"), ("OK n3",)),
        (("server", "check", "meta", "--expect", "3", "--lag-critical", "10", "--seen-critical", "10s"), ("OK",)),
        (("server", "request", "variables"), NAMES),
        (("server", "request", "connections"), NAMES),
        (("server", "request", "accounts"), NAMES),
        (("server", "request", "subscriptions"), NAMES),
        (("server", "request", "routes"), NAMES),
        (("server", "request", "gateways"), NAMES),
        (("server", "request", "leafnodes"), NAMES),
        (("server", "request", "jetstream"), NAMES),
        (("server", "request", "jetstream-health"), NAMES),
        (("server", "request", "raft"), NAMES),
        (("server", "account", "info", "A"), ("A",)),
    ],
)
def test_the_command_line_tool_works(three: Three, arguments: tuple[str, ...], shown: tuple[str, ...]) -> None:
    said = nats_cli(three.url, "--user", "sys", "--password", "sys", *arguments)
    assert all(word in said for word in shown), said


def test_the_command_line_tool_tells_a_user_who_it_is(three: Three) -> None:
    said = nats_cli(three.url, "--user", "a", "--password", "a", "account", "info")
    assert "User: a" in said
    assert "Account: A" in said
