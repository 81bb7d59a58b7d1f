"""Cluster permissions: what crosses a route, seen from its other end, at the daemon and at nats-server."""

from __future__ import annotations

import json
import signal

import pytest
from harness import (
    Lab,
    Server,
    Wire,
    api,
    command,
    connect,
    free_ports,
    ours,
    peer_command,
    ready,
    run,
    wait_for_log,
)

PERMISSIONS = """permissions {
    import { allow: ["imp.>", "*.w"], deny: "imp.deny" }
    export { allow: ["exp.>", "x.*"], deny: ["exp.deny", "x.d"] }
}"""


def server(lab: Lab, make: str) -> Server:
    route = free_ports(1)[0]
    text = f"server_name: one\nlisten: 127.0.0.1:PORT\ncluster {{ name: c1, listen: 127.0.0.1:{route}, pool_size: -1\n"
    cmd = command() if make == "ours" else peer_command()
    started = lab.server("one", f"{text}{PERMISSIONS}\n}}\n", route_port=route, cmd=cmd)
    started.start()
    wait_for_log(started, "Server is ready")
    wait_for_log(started, "Listening for route connections")  # at nats-server that may come later
    return started


class Far(Wire):
    """The far end of a route: another server, played by hand."""

    def join(self) -> dict[str, object]:
        """Introduces itself; the INFO it got."""
        line = self.until(b"\r\n").partition(b"\r\n")[0]
        self.seen = self.seen[len(line) + 2 :]
        connect = {"echo": True, "verbose": False, "pedantic": False, "tls_required": False, "headers": True}
        shared = {"name": "NFAR", "cluster": "c1", "lnoc": True}
        info = {"server_id": "NFAR", "server_name": "far", "version": "2.14.5", "proto": 2, "host": "127.0.0.1"}
        more = {"port": 1, "headers": True, "max_payload": 1048576, "cluster": "c1", "lnoc": True}
        self.send(f"CONNECT {json.dumps(connect | shared)}\r\nINFO {json.dumps(info | more)}\r\n".encode())
        found: dict[str, object] = json.loads(line[5:])
        return found

    def said(self, lines: str = "") -> list[str]:
        """The lines that came until what was sent is done, without those of pings."""
        self.send(lines.encode() + b"PING\r\n")
        self.until(b"PONG\r\n")
        text, _, self.seen = self.seen.partition(b"PONG\r\n")
        lines_ = [line for line in text.decode().split("\r\n") if line not in ("", "PING")]
        return [line for line in lines_ if not line.startswith("INFO")]


@pytest.mark.parametrize("make", ["ours", "peer"])
def test_what_crosses(lab: Lab, make: str) -> None:
    one = server(lab, make)
    with Wire(one.port) as near, Far(one.route_port) as far:
        near.client()
        subjects = ["imp.a", "imp.deny", "imp.*", "imp.>", "other", "*", ">", "q.w", "*.w", "imp.q qq", "end"]
        near.send(b"".join(f"SUB {subject} {sid}\r\n".encode() for sid, subject in enumerate(subjects)) + b"PING\r\n")
        near.until(b"PONG\r\n")
        info = far.join()
        assert info["import"] == {"allow": ["imp.>", "*.w"], "deny": ["imp.deny"]}
        assert info["export"] == {"allow": ["exp.>", "x.*"], "deny": ["exp.deny", "x.d"]}
        told = {"imp.a", "imp.*", "imp.>", "q.w", "*.w", "imp.q qq 1"}
        heard: set[str] = set()
        while heard != {f"RS+ $G {subject}" for subject in told}:  # it comes when the route is registered
            heard |= set(far.said())
            assert heard <= {f"RS+ $G {subject}" for subject in told}
        wanted = ("exp.*", "exp.>", "exp.deny", "other", ">", "x.*", "x.d", "exp.q qq 1", "zz.q qq 1")
        far.said("".join(f"RS+ $G {subject}\r\n" for subject in wanted))
        for subject in ("exp.a", "exp.deny", "other", "x.a", "x.d", "zz.q", "exp.q", "exp.a.b"):
            near.send(f"PUB {subject} 1\r\n.\r\n".encode())
        near.seen = b""
        near.send(b"PING\r\n")
        near.until(b"PONG\r\n")
        sent = [line for line in far.said() if line != "."]
        assert sent == ["RMSG $G exp.a 1", "RMSG $G x.a 1", "RMSG $G exp.q | qq 1", "RMSG $G exp.a.b 1"]
        near.send(b"SUB imp.new 50\r\nSUB new 51\r\nUNSUB 50\r\nUNSUB 51\r\nPING\r\n")
        near.seen = b""
        near.until(b"PONG\r\n")
        assert far.said() == ["RS+ $G imp.new", "RS- $G imp.new"]


@ours
def test_other_permissions_take_effect_on_reload(lab: Lab) -> None:
    one = server(lab, "ours")
    with Wire(one.port) as near:
        near.client()
        near.send(b"SUB imp.a 1\r\nSUB other 2\r\nPING\r\n")
        near.until(b"PONG\r\n")
        with Far(one.route_port) as far:
            far.join()
            while far.said() != ["RS+ $G imp.a"]:
                pass
            one.conf.write_text(one.conf.read_text().replace('"imp.>", "*.w"', '"other"'))
            assert one.process is not None
            one.process.send_signal(signal.SIGHUP)
            far.until_closed()
        with Far(one.route_port) as far:
            assert far.join()["import"] == {"allow": ["other"], "deny": ["imp.deny"]}
            while far.said() != ["RS+ $G other"]:
                pass


@ours
def test_streams_are_replicated_though_little_is_imported(lab: Lab) -> None:
    hosts = lab.hosts(["a", "b", "c"])
    for host in hosts.servers:
        text = host.conf.read_text()
        few = '["_INBOX.>", "$JS.API.>"]'
        barred = f"cluster {{ name: many, permissions {{ import: {few}, export: {few} }},"
        host.conf.write_text(text.replace("cluster { name: many,", barred))
    hosts.start()

    async def replicated() -> None:
        await ready(hosts.servers)
        client = await connect(hosts.servers[0].url)
        info = await api(client, "STREAM.CREATE.S", {"name": "S", "subjects": ["s.>"], "num_replicas": 3})
        assert len(info["cluster"]["replicas"]) == 2
        await client.close()

    run(replicated())
