"""Monitoring over HTTP, as nats-top, the exporter and people with curl ask for it."""

from __future__ import annotations

import base64
import re

import nats
from harness import Lab, Wire, eventually, free_ports, nats_cli, ours, run
from monitoring_client import get, page


def test_what_a_server_says_of_itself_and_its_clients(lab: Lab) -> None:
    (port,) = free_ports(1)
    solo = lab.solo(f"http: 127.0.0.1:{port}")

    async def work() -> None:
        nc = await nats.connect(solo.url, name="<watched>")
        await nc.subscribe("a.*")
        for _ in range(3):
            await nc.publish("a.b", b"12345")
        await nc.flush()
        varz = page(port, "/varz")
        assert varz["server_name"] == "solo"
        assert varz["http_port"] == port
        assert varz["connections"] == 1
        assert varz["jetstream"]["stats"]["accounts"] == 1
        assert varz["mem"] > 0
        found = page(port, "/connz")
        assert found["num_connections"] == 1
        (seen,) = found["connections"]
        assert (seen["in_msgs"], seen["in_bytes"], seen["out_msgs"], seen["out_bytes"]) == (3, 15, 3, 15)
        assert seen["subscriptions"] == 1
        assert seen["name"] == "<watched>"
        assert seen["lang"] == "python3"
        assert "\\u003cwatched\\u003e" in get(port, "/connz")[2]
        js = nc.jetstream()
        await js.add_stream(name="S", subjects=["s"])
        await js.publish("s", b"x")
        jsz = page(port, "/jsz")
        assert (jsz["streams"], jsz["messages"]) == (1, 1)
        await nc.close()

    run(work())
    assert get(port, "/healthz")[::2] == (200, '{"status":"ok"}')
    assert get(port, "/healthz?js-enabled-only=true")[0] == 200
    assert get(port, "/healthz?account=NONE")[0] == 404
    assert get(port, "/nope") == (404, "text/plain; charset=utf-8", "404 page not found\n")
    status, _, body = get(port, "/connz?subs=1&limit=a")
    assert status == 400
    assert body == "Error decoding int for 'limit': strconv.Atoi: parsing \"a\": invalid syntax"
    assert get(port, "/connz?sort=foo")[::2] == (400, "invalid sorting option: foo")
    assert page(port, "/subsz")["num_subscriptions"] > 0


def test_a_cluster_shows_its_routes_and_its_meta_leader(lab: Lab) -> None:
    cluster = lab.example()
    ports = free_ports(3)
    for server, port in zip(cluster.servers, ports, strict=True):
        server.conf.write_text(server.conf.read_text() + f"\nhttp: 127.0.0.1:{port}\n")
    cluster.start()

    async def healthy() -> bool:
        return all(get(port, "/healthz")[0] == 200 for port in ports)

    async def linked() -> bool:
        return all(len({r["remote_name"] for r in page(port, "/routez")["routes"]}) == 2 for port in ports)

    run(eventually(healthy, 20, "three healthy servers"))
    run(eventually(linked, 20, "each has two routes"))
    metas = [page(port, "/varz")["jetstream"]["meta"] for port in ports]
    assert {meta["leader"] for meta in metas} <= {server.name for server in cluster.servers}
    assert any(len(meta.get("replicas", ())) == 2 for meta in metas)


def test_the_monitoring_port_outlives_noise(lab: Lab) -> None:
    (port,) = free_ports(1)
    solo = lab.solo(f"http: 127.0.0.1:{port}")
    for noise in (
        b"\x00" * 1000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"y" * 2_000_000,
        b"PUB a 5\r\nhello\r\n\r\n",
    ):
        with Wire(port) as wire:
            try:
                wire.send(noise)
            except (BrokenPipeError, ConnectionResetError):
                continue
            wire.until_closed()
    assert page(port, "/varz")["server_name"] == "solo"
    nats_cli(solo.url, "rtt")


@ours
def test_our_own_version_stands_beside_the_level(lab: Lab) -> None:
    (port,) = free_ports(1)
    lab.solo(f"http: 127.0.0.1:{port}")
    varz = page(port, "/varz")
    assert varz["version"] == "2.14.5"
    assert varz["jscore_version"]


@ours
def test_the_port_can_ask_for_a_password(lab: Lab) -> None:
    (port,) = free_ports(1)
    lab.solo(f"http: 127.0.0.1:{port}\nhttp_authorization {{ user: me, password: secret, token: tok, healthz: open }}")
    assert get(port, "/varz")[0] == 401
    assert get(port, "/metrics")[0] == 401
    assert get(port, "/healthz")[0] == 200
    right = base64.b64encode(b"me:secret").decode()
    assert get(port, "/varz", {"Authorization": f"Basic {right}"})[0] == 200
    assert get(port, "/metrics", {"Authorization": "Bearer tok"})[0] == 200
    assert get(port, "/metrics", {"Authorization": "Bearer other"})[0] == 401


def test_a_base_path_stands_before_every_page(lab: Lab) -> None:
    (port,) = free_ports(1)
    lab.solo(f"http: 127.0.0.1:{port}\nhttp_base_path: /ops")
    assert get(port, "/varz")[0] == 404
    assert get(port, "/opsvarz")[0] == 404
    assert page(port, "/ops/varz")["http_base_path"] == "/ops"
    assert get(port, "/ops/healthz")[0] == 200


def test_those_who_left_are_shown_with_what_they_did(lab: Lab) -> None:
    (port,) = free_ports(1)
    solo = lab.solo(f"http: 127.0.0.1:{port}\nmax_closed_clients: 3")

    async def work() -> None:
        for number in range(5):
            nc = await nats.connect(solo.url, name=f"c{number}")
            await nc.subscribe("mine.*", queue="q")
            await nc.publish("mine.x", b"123")
            await nc.flush()
            await nc.close()

        async def all_gone() -> bool:
            return bool(page(port, "/connz")["total"] == 0)

        await eventually(all_gone, 10, "all are gone")
        found = page(port, "/connz?state=closed&subs=detail&sort=stop")
        assert [c["name"] for c in found["connections"]] == ["c4", "c3", "c2"]
        for gone in found["connections"]:
            # A client that closes with something unread resets the connection.
            assert gone["reason"] in ("Client Closed", "Read Error")
            assert (gone["in_msgs"], gone["out_msgs"], gone["in_bytes"]) == (1, 1, 3)
            (sub,) = gone["subscriptions_list_detail"]
            assert (sub["subject"], sub["qgroup"], sub["msgs"]) == ("mine.*", "q", 1)

    run(work())


def test_pages_of_connections_and_orders(lab: Lab) -> None:
    (port,) = free_ports(1)
    solo = lab.solo(f"http: 127.0.0.1:{port}")

    async def work() -> None:
        clients = []
        for number in range(6):
            nc = await nats.connect(solo.url, name=f"c{number}")
            for _ in range(number):
                await nc.subscribe("a")
            await nc.flush()
            clients.append(nc)
        by_subs = page(port, "/connz?sort=subs&limit=2&offset=1")
        assert [c["name"] for c in by_subs["connections"]] == ["c4", "c3"]
        assert (by_subs["num_connections"], by_subs["total"]) == (2, 6)
        one = page(port, f"/connz?cid={by_subs['connections'][0]['cid']}")
        assert [c["name"] for c in one["connections"]] == ["c4"]
        assert one["limit"] == 1
        assert page(port, "/subsz?subs=1&test=a&limit=4")["total"] == 15
        assert len(page(port, "/subsz?subs=1&test=a&limit=4")["subscriptions_list"]) == 4
        for nc in clients:
            await nc.close()

    run(work())


SAMPLE = re.compile(r'[a-zA-Z_:][a-zA-Z0-9_:]*(\{([a-z_]+="(\\.|[^"\\])*"(,|(?=\})))*\})? -?[0-9.e+-]+')


@ours
def test_metrics_are_in_the_text_format_and_true(lab: Lab) -> None:
    (port,) = free_ports(1)
    solo = lab.solo(f"http: 127.0.0.1:{port}")

    async def work() -> None:
        nc = await nats.connect(solo.url)
        js = nc.jetstream()
        await js.add_stream(name="S", subjects=["s"])
        await js.pull_subscribe("s", durable="C")
        for _ in range(3):
            await js.publish("s", b"12345")
        status, kind, text = get(port, "/metrics")
        assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
        seen: dict[str, float] = {}
        typed: set[str] = set()
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                name = line.split()[2]
                assert name not in typed, "a name's samples stand together"
                typed.add(name)
                continue
            assert SAMPLE.fullmatch(line), line
            name = re.split(r"[{ ]", line)[0]
            assert name in typed
            seen[name] = seen.get(name, 0) + float(line.rpartition(" ")[2])
        assert seen["gnatsd_varz_connections"] == 1
        assert seen["gnatsd_connz_total"] == 1
        assert seen["gnatsd_healthz_status"] == 0
        assert seen["jetstream_server_total_messages"] == 3
        assert seen["jetstream_stream_total_messages"] == 3
        assert seen["jetstream_consumer_num_pending"] == 3
        assert seen["gnatsd_accstatz_current_connections"] == 1
        assert seen["process_resident_memory_bytes"] > 1 << 20
        assert 'stream_name="S"' in text
        await nc.close()

    run(work())
