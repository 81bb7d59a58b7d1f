"""The command as people and scripts use it: flags, signals, log lines, memory."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import pytest
from harness import CONF, Lab, Wire, command, free_ports, ours, rss_bytes, run_command, wait_for, wait_for_log

STAMP = r"\[\d+\] \d{4}/\d\d/\d\d \d\d:\d\d:\d\d\.\d{6} \[(INF|WRN|ERR|DBG|TRC|FTL)\] "


@pytest.mark.parametrize("flag", ["-v", "--version", "-version"])
def test_version(flag: str) -> None:
    answer = run_command(flag)
    assert answer.returncode == 0
    assert re.search(r"\bv?\d+\.\d+\.\d+", answer.stdout)


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_names_every_daily_flag(flag: str) -> None:
    answer = run_command(flag)
    assert answer.returncode == 0
    for word in ("-c", "-p", "-a", "-js", "-sd", "-n", "-l", "-D", "-V", "-t", "--jetstream", "--store_dir"):
        assert re.search(rf"(^|[\s,]){word}\b", answer.stdout), word


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_example_loads_unchanged(number: int) -> None:
    conf = CONF / f"server{number}.conf"
    answer = run_command("-t", "-c", str(conf))
    assert answer.returncode == 0
    assert f"configuration file {conf} is valid" in answer.stderr


@ours
def test_a_cluster_that_nobody_can_reach_is_warned_about(lab: Lab) -> None:
    port, route = free_ports(2)
    text = (CONF / "server1.conf").read_text().replace("listen=4222", f"listen=127.0.0.1:{port}")
    text = text.replace("/nats/storage", "HOME/store").replace("localhost:6222", f"localhost:{route}")
    server = lab.server("server1", text, port=port)
    server.start()
    line = wait_for_log(server, rf"^{STAMP}.*0\.0\.0\.0:{route}.*$").group(0)
    assert "[WRN]" in line


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly(lab: Lab, sign: signal.Signals) -> None:
    solo = lab.solo()
    assert solo.process is not None
    with Wire(solo.port) as wire:
        wire.client()
        solo.process.send_signal(sign)
        assert solo.process.wait(15) == 0
        wire.until_closed()
    said = solo.log.read_text()
    assert "Server Exiting" in said
    assert "Traceback" not in said


def test_a_stop_tells_whoever_waits_for_messages(lab: Lab) -> None:
    solo = lab.solo()
    assert solo.process is not None
    with Wire(solo.port) as wire:
        wire.client()
        wire.send(b"SUB in.* 1\r\n")
        stream = b'{"name":"S","subjects":["s"],"storage":"file"}'
        wire.send(b"PUB $JS.API.STREAM.CREATE.S in.a %d\r\n%b\r\n" % (len(stream), stream))
        wire.until(b"stream_create_response")
        consumer = b'{"stream_name":"S","config":{"durable_name":"C","ack_policy":"explicit"}}'
        wire.send(b"PUB $JS.API.CONSUMER.DURABLE.CREATE.S.C in.b %d\r\n%b\r\n" % (len(consumer), consumer))
        wire.until(b"consumer_create_response")
        ask = b'{"batch":5,"expires":60000000000}'
        wire.send(b"PUB $JS.API.CONSUMER.MSG.NEXT.S.C in.c %d\r\n%b\r\nPING\r\n" % (len(ask), ask))
        wire.until(b"PONG\r\n")
        solo.process.send_signal(signal.SIGTERM)
        assert b"409 Server Shutdown\r\nNats-Pending-Messages: 5\r\n" in wire.until_closed()
        assert solo.process.wait(15) == 0


def test_log_lines_have_the_format_that_tools_parse(lab: Lab) -> None:
    solo = lab.solo()
    solo.stop()
    lines = solo.log.read_text().splitlines()
    assert lines
    for line in lines:
        assert re.match(STAMP, line), line
    for word in ("Starting nats-server", "Version:", "Listening for client connections on", "Server is ready"):
        assert any(word in line for line in lines) or (word == "Starting nats-server" and "Starting" in lines[0])


@pytest.mark.parametrize("spelling", ["short", "long"])
def test_flags_alone_make_a_jetstream_server(lab: Lab, spelling: str) -> None:
    port = free_ports(1)[0]
    home = lab.home / spelling
    home.mkdir()
    log = home / "named.log"
    short = [
        "-a",
        "127.0.0.1",
        "-p",
        str(port),
        "-n",
        "flagged",
        "-js",
        "-sd",
        str(home / "s"),
        "-l",
        str(log),
        "-D",
        "-V",
    ]
    long = [
        *("--addr", "127.0.0.1", f"--port={port}", "--name", "flagged", "--jetstream"),
        *(f"--store_dir={home / 's'}", "--log", str(log), "--debug", "--trace"),
    ]
    server = lab.server("flagged", "", port=port)
    server.process = subprocess.Popen(
        [*command(), *(short if spelling == "short" else long)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    server.log = log

    wait_for(log.exists, 15, f"{log} exists")
    wait_for_log(server, "Server is ready")
    with Wire(port) as wire:
        info = wire.until(b"\r\n")
        assert b'"server_name":"flagged"' in info
        assert b'"jetstream":true' in info
        wire.client()
        wire.send(b"SUB in.box 1\r\nPUB $JS.API.INFO in.box 0\r\n\r\n")
        assert b"account_info_response" in wire.until(b"}\r\n")
    wait_for_log(server, r"\[TRC\].* - <<- \[PUB \$JS\.API\.INFO in\.box 0\]")
    with Wire(port) as wire:
        wire.send(b'CONNECT {"user":"u","pass":"se\\"cret"}\r\nPUB a 5\r\nhello\r\n')
        wait_for_log(server, r'<<- \[CONNECT \{"user":"u","pass":"\[REDACTED\]"\}\]')
        wait_for_log(server, r'<<- MSG_PAYLOAD: \["hello"\]')
    assert server.stop() == 0


def test_info_names_the_peer_level_we_implement(lab: Lab) -> None:
    solo = lab.solo()
    with Wire(solo.port) as wire:
        info = wire.until(b"\r\n")
    assert info.startswith(b"INFO {")
    assert b'"version":"2.14.5"' in info
    assert b'"headers":true' in info


@ours
def test_a_link_named_nats_server_behaves_as_that_name(lab: Lab, tmp_path: Path) -> None:
    link = tmp_path / "nats-server"
    link.symlink_to(command()[0])
    answer = subprocess.run([str(link), "-v"], capture_output=True, text=True, timeout=20)
    assert answer.returncode == 0
    assert answer.stdout.startswith("nats-server: v2.14.5")
    conf = CONF / "server1.conf"
    answer = subprocess.run([str(link), "-t", "-c", str(conf)], capture_output=True, text=True, timeout=20)
    assert f"nats-server: configuration file {conf} is valid" in answer.stderr


def test_a_port_in_use_is_an_error_and_not_a_hang(lab: Lab) -> None:
    solo = lab.solo()
    answer = run_command("-a", "127.0.0.1", "-p", str(solo.port))
    assert answer.returncode == 1


@ours
def test_an_idle_daemon_is_small(lab: Lab) -> None:
    cluster = lab.ready_example()
    for server in cluster:
        assert rss_bytes(server.pid) < 60 << 20


def test_a_hangup_does_not_end_it(lab: Lab) -> None:
    solo = lab.solo()
    assert solo.process is not None
    solo.process.send_signal(signal.SIGHUP)
    wait_for_log(solo, r"(?i)reload")
    with Wire(solo.port) as wire:
        wire.client()


def test_a_lame_duck_sends_its_clients_elsewhere_and_ends(lab: Lab) -> None:
    solo = lab.solo("lame_duck_grace_period: 1s\nlame_duck_duration: 31s")
    assert solo.process is not None
    with Wire(solo.port) as first, Wire(solo.port) as second:
        for wire in (first, second):
            wire.until(b"\r\n")
            wire.send(b'CONNECT {"verbose":false,"protocol":1}\r\nPING\r\n')
            wire.until(b"PONG\r\n")
        solo.process.send_signal(signal.SIGUSR2)
        for wire in (first, second):
            wire.until(b'"ldm":true')
        with pytest.raises(ConnectionRefusedError):
            Wire(solo.port)
        first.until_closed()
        second.until_closed()
    assert solo.process.wait(30) == 0


def test_a_lame_duck_without_clients_ends_at_once(lab: Lab) -> None:
    solo = lab.solo()
    assert solo.process is not None
    solo.process.send_signal(signal.SIGUSR2)
    assert solo.process.wait(30) == 0


@ours
def test_a_store_in_use_is_named(lab: Lab) -> None:
    solo = lab.solo()
    (port,) = free_ports(1)
    answer = run_command("-js", "-sd", str(solo.conf.parent / "store"), "-a", "127.0.0.1", "-p", str(port))
    assert answer.returncode == 1
    assert f"another server uses the store directory '{solo.conf.parent / 'store'}'" in answer.stderr
