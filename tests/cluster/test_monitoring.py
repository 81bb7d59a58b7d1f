"""Monitoring over HTTP, as nats-top, the exporter and people with curl ask for it."""

from __future__ import annotations

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
