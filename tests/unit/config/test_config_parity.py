"""Agreement with nats-server: what it calls valid is valid, what it refuses is refused, digests are equal."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from jscore_server import cli

PEER = shutil.which("nats-server")
pytestmark = pytest.mark.skipif(PEER is None, reason="nats-server is not on PATH")

SNIPPETS = [
    "",
    "# only a comment",
    "port 4222",
    "{port:4222}",
    '{"port": 4222,\n"debug": true}',
    "port = 4222 }",
    "port\n4222",
    "port:\n4222",
    "port: 4222 debug: true",
    "port: 4222; debug: true, trace: off",
    "port",
    "port: x",
    "port: 1.5",
    "port: 1 // c",
    "port: 12#c",
    "Port: 5\nport: 6",
    "port: 1k",
    "port: $NOPE",
    "A: 3\nport: $A",
    "A: 3\nport: 4",
    "port: 9223372036854775808",
    "max_payload: 1MB",
    "max_payload: 1Mib",
    "max_payload: 1kbb",
    "max_payload: 3000000000",
    "server_name: 127.0.0.1:4222",
    "server_name: 1.2",
    "server_name: 1.2.3",
    "server_name: 12abc",
    "server_name: 1kix",
    "server_name: 2m30s",
    "server_name: -x",
    "server_name: $2a$foo",
    "server_name: a\\x41b",
    'server_name: "\\xC3\\xA9<&>"',
    'server_name: "a\\q"',
    "server_name: 'a\\q'",
    "server_name: 'a\nb'",
    "server_name: (a\n)\n",
    "server_name: (a)",
    "server_name: a b",
    'server_name: "a b"',
    "server_name: true",
    "server_name: 'true'",
    "server_name:",
    "server_name: ::x",
    "server_tags: [a,b,]",
    "server_tags: [a\nb # c\n\nd]",
    "server_tags: [a b]",
    "server_tags: [a,,b]",
    "server_tags: [a\n,b]",
    "server_tags: [true]",
    "server_tags: [",
    'server_metadata { "a b": c, d "e" }',
    "server_metadata { a: 1 }",
    "ping_interval: 30",
    "ping_interval: 2m",
    'ping_interval: "1h30m"',
    'ping_interval: "5"',
    "lame_duck_duration: 5s",
    "lame_duck_duration: 40",
    'listen: "[::1]:4222"',
    'listen: "::1:4222"',
    "listen: -1",
    "listen: abc",
    "debug: 1",
    "foo: 1",
    "foo { a: 1 }",
    "routes: []",
    "jetstream: true",
    "jetstream: enabled",
    "jetstream: maybe",
    "jetstream: 1",
    "jetstream { store_dir: /a, max_mem: 1G, max_file: '1T' }",
    "jetstream { store_dir: '/a'",
    "jetstream { store_dir: /a; ; }",
    "jetstream { store_dir }",
    "jetstream { max_mem: '1GB' }",
    "jetstream { foo: 1 }",
    "jetstream { sync_interval: always }",
    "jetstream { sync_interval: 2m }",
    "jetstream { sync_interval: '2m' }",
    "jetstream { limits { max_ack_pending: 1, batch { timeout: '1s' } } }",
    "jetstream { limits { foo: 1 } }",
    "jetstream { cipher: foo }",
    "jetstream { store_dir: /a }\nstore_dir: /b",
    "cluster { name: c, listen: 127.0.0.1:6222, routes: [nats://u:p@a:1\nnats-route://b] }",
    "cluster { name: 'a b' }",
    "cluster { routes: nats://a:1 }",
    "cluster { routes: ['nats://a:x'] }",
    "cluster { authorization { user: a, password: b, timeout: 1 } }",
    "cluster { authorization { token: x } }",
    "cluster { ping_interval: '1m' }",
    "cluster { foo: 1 }",
    "cluster: true",
    "mqtt { port: 1883 }",
    "mqtt { foo: 1 }",
    "leafnodes { port: 7422 }",
    "feature_flags { a: true }",
    "feature_flags { a: 1 }",
    "http: 8222\nmonitor_port: 8223",
    "write_timeout: foo",
    "include none.conf",
    "include other.conf",
    "include 'other.conf'; debug: true",
    "m: 1\ncluster { name: $m }",
    "port: $FROM_ENV",
    "port: $BAD_ENV",
    "port: $SELF",
]


@pytest.mark.parametrize("text", SNIPPETS)
def test_check_agrees(text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, value in {"FROM_ENV": "5k", "BAD_ENV": "a b", "SELF": "$SELF"}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "other.conf").write_text("server_name: other\n")
    (tmp_path / "x.conf").write_text(text)
    peer = subprocess.run(
        [PEER or "", "-t", "-c", "x.conf"], capture_output=True, text=True, errors="replace", timeout=60, check=False
    )
    code = cli.main(["-t", "-c", "x.conf"])
    ours = capsys.readouterr().err
    assert code == peer.returncode, f"nats-server: {peer.stderr}\nours: {ours}"
    if code == 0:
        assert re.findall(r"sha256:\w+", ours) == re.findall(r"sha256:\w+", peer.stderr)


@pytest.mark.parametrize(
    "args", ["-foo", "-p", "-p abc", "-D=maybe", "---p 1", "bogus", "-t", "-t -c none.conf", "-sl quit=abc", "version"]
)
def test_the_command_line_agrees(args, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["nats-server"])
    peer = subprocess.run([PEER or "", *args.split()], capture_output=True, text=True, timeout=60, check=False)
    assert cli.main(args.split()) == peer.returncode
    out, err = capsys.readouterr()
    assert err == peer.stderr
    assert out == peer.stdout or "Usage:" in out
