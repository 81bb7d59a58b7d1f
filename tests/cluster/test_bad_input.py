"""Hostile or broken input: the protocol's own words, the connection closed where it must be, nobody else affected."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest
from harness import (
    Cluster,
    Lab,
    Wire,
    api,
    connect,
    eventually,
    free_ports,
    ours,
    run,
    run_command,
    wait_for,
    wait_for_log,
)
from jscore_server.version import Versions

CASES = {
    "oversize control line": (b"PUB " + b"a" * 5000 + b" 1\r\nx\r\n", b"-ERR 'maximum control line exceeded'"),
    "oversize control line without an end": (b"SUB " + b"a" * 9000, b"-ERR 'maximum control line exceeded'"),
    "oversize payload": (b"PUB foo 99999999\r\n", b"-ERR 'Maximum Payload Violation'"),
    "payload without CRLF": (b"PUB foo 5\r\nhelloXXPING\r\n", b"-ERR 'Unknown Protocol Operation'"),
    "unknown verb": (b"FOO\r\n", b"-ERR 'Unknown Protocol Operation'"),
    "binary noise": (bytes(range(128, 256)) * 8 + b"\r\n", b"-ERR 'Unknown Protocol Operation'"),
    "zeros": (b"\0" * 600, b"-ERR 'Unknown Protocol Operation'"),
}
SILENT = {
    "payload size that is no number": b"PUB foo x\r\n",
    "payload size that overflows": b"PUB foo 99999999999999999999\r\n",
    "too many arguments": b"PUB a b c 1\r\nx\r\n",
    "CONNECT that is not JSON": b"CONNECT {\r\n",
    "header longer than the whole": b"HPUB foo 9 3\r\nabc\r\n",
}


def still_serves(port: int) -> None:
    """A fresh client can publish to itself."""
    with Wire(port) as wire:
        wire.client()
        wire.send(b"SUB still.here 1\r\nPUB still.here 2\r\nok\r\nPING\r\n")
        assert b"MSG still.here 1 2\r\nok\r\n" in wire.until(b"PONG\r\n")


@pytest.fixture
def bystander(shared: Cluster):  # type: ignore[no-untyped-def]
    """A client of the same server that must not notice anything."""
    with Wire(shared.servers[0].port) as wire:
        wire.client()
        wire.send(b"SUB by.stander 1\r\nPING\r\n")
        wire.until(b"PONG\r\n")
        yield
        wire.send(b"PUB by.stander 2\r\nok\r\n")
        wire.until(b"MSG by.stander 1 2\r\nok\r\n")


@pytest.mark.parametrize("what", CASES)
def test_violations_are_named_and_the_connection_closed(shared: Cluster, bystander: None, what: str) -> None:
    sent, expected = CASES[what]
    with Wire(shared.servers[0].port) as wire:
        wire.client()
        wire.send(sent)
        assert expected in wire.until_closed()
    still_serves(shared.servers[0].port)


@pytest.mark.parametrize("what", SILENT)
def test_malformed_arguments_close_the_connection(shared: Cluster, bystander: None, what: str) -> None:
    with Wire(shared.servers[0].port) as wire:
        wire.client()
        wire.send(SILENT[what])
        assert b"PONG" not in wire.until_closed()
    still_serves(shared.servers[0].port)


def test_illegal_subjects_are_refused_and_the_connection_stays(shared: Cluster, bystander: None) -> None:
    with Wire(shared.servers[0].port) as wire:
        wire.client()
        for subject in (b"foo..bar", b".foo", b"foo.", b"foo.>.bar"):
            wire.seen = b""
            wire.send(b"SUB " + subject + b" 1\r\nPING\r\n")
            assert b"-ERR 'Invalid Subject'" in wire.until(b"PONG\r\n")
    with Wire(shared.servers[0].port) as wire:
        wire.until(b"\r\n")
        wire.send(b'CONNECT {"verbose":false,"pedantic":true}\r\nPUB foo.* 1\r\nx\r\nPING\r\n')
        assert b"-ERR 'Invalid Publish Subject'" in wire.until(b"PONG\r\n")


def test_bytes_may_arrive_one_at_a_time(shared: Cluster) -> None:
    with Wire(shared.servers[0].port) as wire:
        wire.client()
        for byte in b"SUB one.byte 1\r\nPUB one.byte 3\r\nabc\r\nPING\r\n":
            wire.send(bytes([byte]))
        assert b"MSG one.byte 1 3\r\nabc\r\n" in wire.until(b"PONG\r\n")


def test_noise_on_the_cluster_port_harms_nobody(shared: Cluster, bystander: None) -> None:
    for noise in (
        b"\0" * 4096,
        os.urandom(4096),
        b"RS+ $G\r\n" * 9,
        b"CONNECT {}\r\nLS+ x\r\n",
        b"INFO {\r\n",
        b"RMSG\r\n",
    ):
        with Wire(shared.servers[0].route_port, seconds=15) as wire:
            wire.until(b"\r\n")
            wire.send(noise + b"\r\n")
            wire.sock.shutdown(1)
            wire.until_closed()
    still_serves(shared.servers[0].port)


def introduction(**fields: object) -> bytes:
    info = {"server_id": "NSTRANGER", "server_name": "stranger", "cluster": "c1", "port": 1, "route_pool_size": 3}
    return b"INFO " + json.dumps({**info, **fields}).encode() + b"\r\n"


BAD_POOLS = {
    "an index behind the end": introduction(route_pool_idx=3),
    "a negative index": introduction(route_pool_idx=-1),
    "an index that is no number": introduction(route_pool_idx=True),
    "a pool without bounds": introduction(route_pool_size=1 << 40),
    "an account without a route": introduction(route_account="NOBODY\r\nINFO {}"),
    "an account that is none": introduction(route_account=["$SYS"]),
    "a cluster name with line ends": introduction(cluster="c2\r\n+OK"),
}


@ours
@pytest.mark.parametrize("what", BAD_POOLS)
def test_a_pool_that_cannot_be_is_refused(shared: Cluster, bystander: None, what: str) -> None:
    with Wire(shared.servers[0].route_port, seconds=15) as wire:
        wire.until(b"\r\n")
        wire.seen = b""
        wire.send(BAD_POOLS[what] + b"RS+ $G by.stander\r\nRS+ by.stander\r\n")
        (line,) = wire.until_closed().splitlines()
        assert line.startswith(b"-ERR '")
    still_serves(shared.servers[0].port)


@ours
def test_lines_of_one_connection_of_a_pool_may_be_anything(shared: Cluster, bystander: None) -> None:
    for account in ({}, {"route_account": "$SYS"}, {"route_pool_idx": 2}):
        for lines in (b"RS+\r\n", b"RS+ a b c d e\r\n", b"LS+ o\r\n", b"RMSG 1\r\n", b"LMSG o x 5 1\r\nx\r\n"):
            with Wire(shared.servers[0].route_port, seconds=15) as wire:
                wire.until(b"\r\n")
                wire.send(introduction(**account) + b"PING\r\n")
                wire.until(b"PONG\r\n")
                wire.send(lines)
                wire.until_closed()
    still_serves(shared.servers[0].port)


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), bit by bit: slow, and independent of the engine's own."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def frame(body: bytes, *, kind: int = 1, version: int = 1, size: int | None = None, spoil: bool = False) -> bytes:
    """One frame of the replication link: crc of what follows it, length, version, kind, zeros, body."""
    rest = struct.pack("<IBBHI", len(body) if size is None else size, version, kind, 0, 0) + body
    return struct.pack("<I", crc32c(rest) ^ (1 if spoil else 0)) + rest


BAD_FRAMES = {
    "a wrong CRC": frame(b'{"a":1}', spoil=True),
    "a wrong version": frame(b'{"a":1}', version=9),
    "a length above the limit": frame(b"", size=0x7FFFFFFF),
    "no frame at all": b"GET / HTTP/1.1\r\n\r\n" * 4,
}


@ours
@pytest.mark.parametrize("what", BAD_FRAMES)
def test_a_broken_frame_drops_only_its_link(shared: Cluster, bystander: None, what: str) -> None:
    server = shared.servers[2]  # of two servers the one with the lower name dials, so server3 believes to be dialled
    offset = server.log.stat().st_size
    with Wire(server.route_port, seconds=15) as wire:
        wire.until(b"\r\n")
        ask = {"version": 1, "name": "server1", "cluster": "c1", "to": server.name}
        wire.send(b"JSLINK " + json.dumps(ask).encode() + b"\r\n" + BAD_FRAMES[what])
        wire.until_closed()
    wait_for(lambda: server.log.stat().st_size > offset, 10, "a log line about the drop")
    still_serves(server.port)

    async def replicated() -> None:
        client = await connect(server.url, allow_reconnect=False)

        async def stored() -> bool:
            config = {"name": "FINE", "subjects": ["fine"], "num_replicas": 3, "storage": "file"}
            await api(client, "STREAM.CREATE.FINE", config)
            return bool((await client.jetstream(timeout=5).publish("fine", b"x")).seq)

        await eventually(stored, 20, "replication goes on")
        await api(client, "STREAM.DELETE.FINE")
        await client.close()

    run(replicated())


def link_hello(name: str, **fields: object) -> bytes:
    body = {"name": name, "directory": "0" * 32, "birth": None, "elected": False, "known": {}, **fields}
    return frame(json.dumps(body).encode(), kind=255)


@ours
def test_a_peer_that_lies_about_its_name_takes_nobodys_link(shared: Cluster, bystander: None) -> None:
    """The one of that name is linked and alive; who comes with another store directory is somebody else."""
    server = shared.servers[2]
    said = server.log.read_text(errors="replace").count("another server of that name is connected")
    with Wire(server.route_port, seconds=15) as wire:
        wire.until(b"\r\n")
        ask = {"version": 1, "name": "server1", "cluster": "c1", "to": server.name}
        wire.send(b"JSLINK " + json.dumps(ask).encode() + b"\r\n" + link_hello("server1"))
        wire.until_closed()
    wait_for(
        lambda: server.log.read_text(errors="replace").count("another server of that name is connected") > said,
        10,
        "a line about it",
    )
    assert "Replaced by a newer link" not in server.log.read_text(errors="replace")


@ours
@pytest.mark.parametrize("ask", [
    {"name": "server1", "cluster": "c2", "to": "server3", "version": 1},
    {"name": "server0", "cluster": "c1", "to": "server2", "version": 1},
    {"name": "server9", "cluster": "c1", "to": "server3", "version": 1},
    {"name": "server1", "cluster": "c1", "to": "server3", "version": Versions().newest + 1},
    {"name": "server1", "cluster": "c1", "to": "server3"},
    {"name": ["server1"], "cluster": "c1", "to": "server3", "version": 1},
    {"name": "stranger\n[ERR] x", "cluster": "c1", "to": "server3", "version": 7},
])  # fmt: skip
def test_who_asks_for_a_link_wrongly_is_refused_with_a_line(shared: Cluster, bystander: None, ask: object) -> None:
    server = shared.servers[2]
    before = len(server.log.read_text(errors="replace").splitlines())
    with Wire(server.route_port, seconds=15) as wire:
        wire.until(b"\r\n")
        wire.send(b"JSLINK " + json.dumps(ask).encode() + b"\r\n" + link_hello("server1"))
        wire.until_closed()

    def told() -> bool:
        lines = server.log.read_text(errors="replace").splitlines()[before:]
        return any("Replication link with" in line and "refused" in line for line in lines)

    wait_for(told, 10, "a line about it")
    still_serves(server.port)


BROKEN_CONFIGS = {
    "an open block": ("listen: 127.0.0.1:4222\njetstream {\n  store_dir: /tmp/x\n", 0),
    "a bad port": ("listen: 127.0.0.1:notaport\n", 1),
    "a stray bracket": ("server_name: a\nlisten: 4222\n]\n", 3),
    "an unknown variable": ("server_name: a\nlisten: $NO_SUCH_VARIABLE_HERE\n", 2),
}


@pytest.mark.parametrize("what", BROKEN_CONFIGS)
def test_a_malformed_configuration_is_one_line_and_exit_1(tmp_path: Path, what: str) -> None:
    text, line = BROKEN_CONFIGS[what]
    conf = tmp_path / "broken.conf"
    conf.write_text(text)
    for arguments in (["-c", str(conf)], ["-t", "-c", str(conf)]):
        answer = run_command(*arguments)
        assert answer.returncode == 1
        said = (answer.stderr + answer.stdout).strip()
        assert said
        assert len(said.splitlines()) == 1
        assert "Traceback" not in said
        if "nats-server" not in answer.args[0]:
            assert f"{conf}:{line}:" in said if line else str(conf) in said


@pytest.mark.parametrize("missing", ["server_name", "name"])
def test_a_jetstream_cluster_without_names_is_refused(tmp_path: Path, missing: str) -> None:
    client, route = free_ports(2)
    text = (
        f'server_name: a\nlisten: 127.0.0.1:{client}\njetstream {{ store_dir: "HOME" }}\n'
        f"cluster {{\n  name: c1\n  listen: 127.0.0.1:{route}\n  routes: [ nats-route://127.0.0.1:1 ]\n}}\n"
    )
    lines = [
        line for line in text.replace("HOME", str(tmp_path / "s")).splitlines() if line.split(":")[0].strip() != missing
    ]
    conf = tmp_path / "nameless.conf"
    conf.write_text("\n".join(lines))
    answer = run_command("-c", str(conf))
    assert answer.returncode == 1
    assert ("server_name" if missing == "server_name" else "cluster") in answer.stderr + answer.stdout


@ours
def test_a_store_of_an_unknown_format_is_refused_and_untouched(lab: Lab) -> None:
    solo = lab.solo()
    solo.stop()
    store = lab.home / "solo" / "store"
    (stamp,) = list(store.rglob("store.json"))
    known = json.loads(stamp.read_text())
    (version,) = [key for key in known if "version" in key or "format" in key]
    known[version] = 999
    known.pop("check", None)  # of the format that is known; with a wrong one it would be damage
    stamp.write_text(json.dumps(known))

    def picture() -> dict[str, tuple[bytes, int]]:
        return {
            str(path): (path.read_bytes(), path.stat().st_mtime_ns)
            for path in sorted(store.rglob("*"))
            if path.is_file()
        }

    before = picture()
    solo.start()
    assert solo.process is not None
    assert solo.process.wait(20) == 1
    assert picture() == before
    wait_for_log(solo, r"999")
