"""What nats-server shows, this server shows: field by field, under the same names and with the same JSON types.

The same things are done to both, then every page and every answer and event of the system account is compared. What
only one of them has a reason to show is named in `OWN_MATTERS`.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import nats
import pytest
from harness import Lab, Server, eventually, free_ports, peer_command, ready, run, wait_for
from monitoring_client import SYSTEM, Three, ask, get, listens, page

CONF = """
server_name: NAME
listen: 127.0.0.1:PORT
http: 127.0.0.1:HTTP
jetstream { store_dir: "HOME/store", sync_interval: "1m" }
server_tags: ["one"]
websocket { listen: 127.0.0.1:WEB, no_tls: true, compression: true, handshake_timeout: 3s }
accounts { $SYS { users: [{ user: sys, password: sys }] } }
"""
PAGES = (
    "/varz",
    "/connz",
    "/connz?subs=1&auth=1",
    "/connz?subs=detail&auth=1&state=any",
    "/connz?state=closed&sort=stop",
    "/connz?acc=NOBODY",
    "/routez?subs=1",
    "/gatewayz",
    "/leafz",
    "/subsz",
    "/subsz?subs=1&test=quiet.1",
    "/accountz",
    "/accountz?acc=$G",
    "/accountz?acc=$SYS",
    "/accstatz",
    "/accstatz?unused=1",
    "/jsz",
    "/jsz?accounts=1",
    "/jsz?consumers=1&config=1&raft=1",
    "/healthz",
    "/healthz?details=1",
    "/ipqueuesz",
    "/debug/vars",
)
ERRORS = (
    "/connz?sort=foo",
    "/connz?sort=stop",
    "/connz?sort=reason&state=open",
    "/connz?state=foo",
    "/connz?subs=foo",
    "/connz?auth=2",
    "/connz?offset=x",
    "/connz?limit=1.5",
    "/connz?cid=x",
    "/connz?cid=99999999999999999999",
    "/subsz?test=foo.*",
    "/subsz?subs=detail",
    "/subsz?limit=x",
    "/accountz?acc=NOBODY",
    "/accstatz?unused=x",
    "/jsz?accounts=x",
    "/jsz?limit=x",
    "/routez?subs=x",
    "/leafz?subs=x",
    "/gatewayz?accs=x",
    "/healthz?js-enabled-only=x",
    "/healthz?stream=x",
    "/healthz?consumer=x",
    "/healthz?account=NOBODY",
    "/healthz?account=$G&stream=x",
    "/healthz?account=$G&stream=S&consumer=x",
    "/healthz?account=$G&stream=S&consumer=x&details=1",
    "/ipqueuesz?all=x",
    "/raftz",
    "/nope",
    "/expvarz",
)
REQUESTS = (
    *(f"SERVER.PING.{z}" for z in ("IDZ", "STATSZ", "VARZ", "CONNZ", "ROUTEZ", "GATEWAYZ", "LEAFZ", "SUBSZ", "JSZ")),
    *(f"SERVER.PING.{z}" for z in ("ACCOUNTZ", "HEALTHZ", "RAFTZ", "IPQUEUESZ", "EXPVARZ", "PROFILEZ", "KICK", "NOPE")),
    *(f"SERVER.ID.{z}" for z in ("IDZ", "STATSZ", "VARZ", "CONNZ", "HEALTHZ", "NOPE")),
    "SERVER.PING",
    'SERVER.PING.CONNZ {"auth":true,"subscriptions":true,"subscriptions_detail":true,"state":2}',
    'SERVER.PING.CONNZ {"acc":"$G","filter_subject":"quiet.1"}',
    'SERVER.PING.CONNZ {"server_name":"elsewhere"}',
    'SERVER.PING.CONNZ {"server_name":"erve"}',
    'SERVER.PING.CONNZ {"server_name":"erve","exact_match":true}',
    'SERVER.PING.CONNZ {"tags":["one"]}',
    'SERVER.PING.CONNZ {"tags":["two"]}',
    'SERVER.PING.CONNZ {"domain":"d"}',
    'SERVER.PING.JSZ {"consumer":true,"config":true}',
    'SERVER.PING.PROFILEZ {"name":"nothing"}',
    'SERVER.ID.KICK {"cid":99999}',
    "SERVER.ID.KICK",
    'SERVER.ID.LDM {"cid":99999}',
    *(f"ACCOUNT.$G.{z}" for z in ("CONNZ", "SUBSZ", "LEAFZ", "JSZ", "INFO", "STATZ", "CONNS")),
    *(f"ACCOUNT.NOBODY.{z}" for z in ("CONNZ", "SUBSZ", "LEAFZ", "JSZ", "INFO", "STATZ", "CONNS")),
    "ACCOUNT.PING.STATZ",
    'ACCOUNT.PING.STATZ {"accounts":["$G"]}',
    "ACCOUNT.PING.CONNZ",
    "USER.INFO",
    'ACCOUNT.NSUBS {"acc":"$G","subject":"quiet.1"}',
)
REFUSED = (  # the error's text is compared as well
    "SERVER.PING.CONNZ {x",
    'SERVER.PING.CONNZ {"sort":"foo"}',
    'SERVER.PING.CONNZ {"limit":"foo"}',
    'SERVER.PING.CONNZ {"sort":"stop"}',
    'SERVER.PING.CONNZ {"filter_subject":"x"}',
    "ACCOUNT.NOBODY.INFO",
    "ACCOUNT.NOBODY.JSZ",
    'SERVER.ID.KICK {"cid":99999}',
    'SERVER.ID.LDM {"cid":99999}',
)
# One connection carries all accounts here: there is none of which an account would be named.
ROUTES_OWN = ("[].routes[].account",)
# Paths of fields that need not be here: the insides of Go's run time, and queues of another design.
OWN_MATTERS = (
    "memstats.",
    "System recvQ",
    "JetStream API",
    "[ACC:",
    "SendQ",
)


def shape(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(path, JSON type) of everything in a value; the members of a list have one path."""
    if isinstance(value, dict):
        yield path, "object"
        for name, item in value.items():
            yield from shape(item, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        yield path, "array"
        for item in value:
            yield from shape(item, path + "[]")
    elif value is None:
        yield path, "null"
    else:
        kinds = {bool: "bool", int: "number", float: "number", str: "string"}
        yield path, kinds[type(value)]


def missing(theirs: Any, ours: Any) -> set[tuple[str, str]]:
    """What the peer shows and we do not."""
    left = set(shape(theirs)) - set(shape(ours))
    return {(path, kind) for path, kind in left if not any(own in path for own in OWN_MATTERS)}


@dataclass
class Seen:
    """One server, and what it said."""

    server: Server
    http: int
    server_id: str = ""
    pages: dict[str, tuple[int, str, str]] = field(default_factory=dict)
    answers: dict[str, list[tuple[dict[str, str], Any]]] = field(default_factory=dict)


async def live(seen: Seen) -> None:
    """Does to a server what both have done to them, and writes down what it says."""
    url = seen.server.url
    seen.server_id = json.loads(get(seen.http, "/varz")[2])["server_id"]
    system = await nats.connect(url, **SYSTEM, name="watcher")

    passing = await nats.connect(url, name="passing")
    await passing.subscribe("once", queue="few")
    await passing.publish("once", b"1")
    await passing.flush()
    await passing.close()
    staying = await nats.connect(url, name="staying")
    await staying.subscribe("quiet.*")
    await staying.subscribe("quiet.1", queue="group")
    for _ in range(5):
        await staying.publish("quiet.1", b"12345")
    js = staying.jetstream()
    await js.add_stream(name="S", subjects=["s"])
    pull = await js.pull_subscribe("s", durable="C")
    await js.publish("s", b"x")
    await (await pull.fetch(1, timeout=5))[0].ack()
    await staying.flush()
    for path in PAGES + ERRORS:
        seen.pages[path] = get(seen.http, path)
    for line in (*REQUESTS, *REFUSED):
        name, _, body = line.partition(" ")
        subject = "$SYS.REQ." + name.replace("ID", seen.server_id)
        seen.answers[line] = await ask(system, subject, body.encode())
    for client in ("USER.INFO", "ACCOUNT.PING.CONNZ", "SERVER.PING.CONNZ", "ACCOUNT.PING.STATZ", "SERVER.PING.VARZ"):
        seen.answers["staying " + client] = await ask(staying, "$SYS.REQ." + client, b"")
    await staying.close()
    await system.close()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Seen, Seen]]:
    """The peer and this server after the same life."""
    lab = Lab(tmp_path_factory.mktemp("pair"))
    try:
        found = []
        for name, command in (("theirs", peer_command()), ("ours", None)):
            http, web = free_ports(2)
            text = CONF.replace("NAME", "server").replace("HTTP", str(http)).replace("WEB", str(web))
            server = lab.server(name, text, cmd=command)
            server.start()
            asyncio.run(ready([server]))
            seen = Seen(server, http)
            run(live(seen))
            found.append(seen)
        yield found[0], found[1]
    finally:
        lab.close()


@pytest.mark.parametrize("path", PAGES)
def test_every_field_of_a_page_is_here(pair: tuple[Seen, Seen], path: str) -> None:
    theirs, ours = (seen.pages[path] for seen in pair)
    assert ours[:2] == theirs[:2]
    assert not missing(json.loads(theirs[2]), json.loads(ours[2]))


@pytest.mark.parametrize("path", ERRORS)
def test_what_is_wrong_is_said_in_the_same_words(pair: tuple[Seen, Seen], path: str) -> None:
    theirs, ours = (seen.pages[path] for seen in pair)
    assert ours == theirs


@pytest.mark.parametrize("line", REQUESTS)
def test_every_field_of_an_answer_is_here(pair: tuple[Seen, Seen], line: str) -> None:
    theirs, ours = (seen.answers[line] for seen in pair)
    assert [headers.get("Status") for headers, _ in ours] == [headers.get("Status") for headers, _ in theirs]
    for (_, wanted), (_, found) in zip(theirs, ours, strict=True):
        assert not missing(wanted, found)


@pytest.mark.parametrize("line", REFUSED)
def test_a_request_is_refused_in_the_same_words(pair: tuple[Seen, Seen], line: str) -> None:
    ((_, theirs),), ((_, ours),) = (seen.answers[line] for seen in pair)
    assert ours["error"] == theirs["error"]
    assert ("data" in ours) == ("data" in theirs)


@pytest.mark.parametrize(
    "subject", ["USER.INFO", "ACCOUNT.PING.CONNZ", "SERVER.PING.CONNZ", "ACCOUNT.PING.STATZ", "SERVER.PING.VARZ"]
)
def test_a_client_may_ask_about_its_own_account(pair: tuple[Seen, Seen], subject: str) -> None:
    theirs, ours = (seen.answers["staying " + subject] for seen in pair)
    assert [headers.get("Status") for headers, _ in ours] == [headers.get("Status") for headers, _ in theirs]
    for (_, wanted), (_, found) in zip(theirs, ours, strict=True):
        assert not missing(wanted, found)


WATCHED = """
server_name: server
listen: 127.0.0.1:PORT
accounts {
  A { users: [{ user: a, password: a }] }
  $SYS { users: [{ user: sys, password: sys }] }
}
"""
EVENTS = (
    "$SYS.ACCOUNT.A.CONNECT",
    "$SYS.ACCOUNT.A.DISCONNECT",
    "$SYS.ACCOUNT.A.SERVER.CONNS",
    "$SYS.SERVER.ACCOUNT.A.CONNS",
    "$SYS.SERVER.ID.STATSZ",
    "$SYS.SERVER.ID.CLIENT.AUTH.ERR",
    "$SYS.SERVER.ID.LAMEDUCK",
)


async def watched(server: Server) -> dict[str, Any]:
    """What a system user hears while a client comes and goes, another is refused, and the server ends."""
    events: dict[str, Any] = {}
    complete = asyncio.Event()
    system = await nats.connect(server.url, **SYSTEM, allow_reconnect=False)
    ((_, who),) = await ask(system, "$SYS.REQ.SERVER.PING.IDZ")

    async def heard(msg: Any) -> None:
        events[msg.subject.replace(who["id"], "ID")] = json.loads(msg.data)
        if set(EVENTS) - set(events) <= {"$SYS.SERVER.ID.LAMEDUCK"}:
            complete.set()

    await system.subscribe("$SYS.SERVER.>", cb=heard)
    await system.subscribe("$SYS.ACCOUNT.>", cb=heard)
    await system.flush()
    client = await nats.connect(server.url, user="a", password="a", name="watched")
    await client.publish("x", b"123")
    await client.flush()
    await client.close()
    with pytest.raises(nats.errors.Error):
        await nats.connect(server.url, user="nobody", password="x", allow_reconnect=False, max_reconnect_attempts=0)
    await asyncio.wait_for(complete.wait(), 20)
    complete.clear()
    assert server.process is not None
    server.process.send_signal(signal.SIGUSR2)
    while "$SYS.SERVER.ID.LAMEDUCK" not in events:
        await asyncio.wait_for(complete.wait(), 20)
        complete.clear()
    await system.close()
    return events


def test_every_field_of_an_event_is_here(lab: Lab) -> None:
    heard = []
    for name, command in (("theirs", peer_command()), ("ours", None)):
        server = lab.server(name, WATCHED, cmd=command)
        server.start()
        wait_for(lambda port=server.port: listens(port), 10, "a listener")
        heard.append(run(watched(server)))
    theirs, ours = heard
    for subject in EVENTS:
        assert not missing(theirs[subject], ours[subject]), subject
        for name in ("type", "reason", "sent", "received", "conns"):
            if name != "sent" or "DISCONNECT" in subject:
                assert ours[subject].get(name) == theirs[subject].get(name), (subject, name)


CLUSTER_PAGES = (
    "/varz",
    "/routez",
    "/routez?subs=1",
    "/routez?subs=detail",
    "/jsz?consumers=1&config=1&raft=1",
    "/raftz",
    "/raftz?acc=$G",
    "/accstatz?unused=1",
    "/healthz",
)


async def replicated(three: Three) -> list[dict[str, str]]:
    """The pages of three servers that hold a stream together."""
    nc = await nats.connect(three.url)
    await nc.subscribe("here")
    js = nc.jetstream()
    await js.add_stream(name="S", subjects=["s"], num_replicas=3)
    pull = await js.pull_subscribe("s", durable="C")
    await js.publish("s", b"x")
    await (await pull.fetch(1, timeout=10))[0].ack()

    async def everywhere() -> bool:
        return all(page(port, "/jsz")["messages"] == 1 and page(port, "/raftz?acc=$G") for port in three.http)

    await eventually(everywhere, 20, "the stream is everywhere")
    shown = [{path: get(port, path)[2] for path in CLUSTER_PAGES} for port in three.http]
    await nc.close()
    return shown


def test_a_cluster_shows_every_field_too(lab: Lab) -> None:
    both = []
    for home, command in (("theirs-", peer_command()), ("ours-", None)):
        three = Three(lab, cmd=command, home=home)
        three.wait()
        both.append(run(replicated(three)))
        for server in three.servers:
            server.kill()
    theirs, ours = both
    for path in CLUSTER_PAGES:
        # Who leads is chance: what one of the three shows, one of ours must.
        wanted = [json.loads(pages[path]) for pages in theirs]
        found = [json.loads(pages[path]) for pages in ours]
        left = {entry for entry in missing(wanted, found) if not any(own in entry[0] for own in ROUTES_OWN)}
        assert not {named(entry) for entry in left} - {named(entry) for entry in shape(found)}, path


def named(entry: tuple[str, str]) -> tuple[str, str]:
    """A path without the names of groups and peers, which are drawn at random."""
    path = re.sub(r"(\$G|\$SYS)\.[^.]+", r"\1.GROUP", entry[0])
    return re.sub(r"peers\.[^.]+", "peers.PEER", path), entry[1]


def test_an_idle_server_shows_every_field_too(lab: Lab) -> None:
    shown = []
    for name, command in (("theirs", peer_command()), ("ours", None)):
        (http,) = free_ports(1)
        text = f"server_name: idle\nlisten: 127.0.0.1:PORT\nhttp: 127.0.0.1:{http}\n"
        server = lab.server(name, text, cmd=command)
        server.start()
        wait_for(lambda port=http: listens(port), 10, "a listener")
        shown.append({path: get(http, path) for path in PAGES})
    theirs, ours = shown
    for path in PAGES:
        assert ours[path][:2] == theirs[path][:2], path
        assert not missing(json.loads(theirs[path][2]), json.loads(ours[path][2])), path
