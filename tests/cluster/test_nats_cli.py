"""The `nats` command against the cluster, without a complaint."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator

import pytest
from harness import Cluster, Wire, nats_cli


@pytest.fixture(scope="module")
def url(shared: Cluster) -> str:
    return ",".join(shared.urls)


@pytest.fixture
def orders(url: str) -> Iterator[str]:
    """A stream made by the CLI itself."""
    nats_cli(
        url, "stream", "add", "ORDERS", "--subjects", "orders.>", "--replicas", "3", "--storage", "file", "--defaults"
    )
    yield "ORDERS"
    nats_cli(url, "stream", "rm", "ORDERS", "--force")


def test_stream_add_info_ls_report(url: str, orders: str) -> None:
    nats_cli(url, "pub", "orders.new", "hello", "--count", "5")
    info = json.loads(nats_cli(url, "stream", "info", orders, "--json"))
    assert info["state"]["messages"] == 5
    assert len(info["cluster"]["replicas"]) == 2
    assert "Replicas: 3" in nats_cli(url, "stream", "info", orders)
    assert orders in nats_cli(url, "stream", "ls")
    assert nats_cli(url, "stream", "ls", "--names").split() == [orders]
    assert orders in nats_cli(url, "stream", "report")
    assert "hello" in nats_cli(url, "stream", "get", orders, "3")
    nats_cli(url, "stream", "purge", orders, "--force")
    assert json.loads(nats_cli(url, "stream", "info", orders, "--json"))["state"]["messages"] == 0


def test_consumer_add_and_next(url: str, orders: str) -> None:
    nats_cli(url, "pub", "orders.new", "first")
    nats_cli(url, "pub", "orders.new", "second")
    nats_cli(url, "consumer", "add", orders, "WORK", "--pull", "--deliver", "all", "--ack", "explicit", "--defaults")
    assert "first" in nats_cli(url, "consumer", "next", orders, "WORK", "--ack")
    assert "second" in nats_cli(url, "consumer", "next", orders, "WORK", "--ack")
    info = json.loads(nats_cli(url, "consumer", "info", orders, "WORK", "--json"))
    assert (info["num_pending"], info["delivered"]["consumer_seq"]) == (0, 2)
    assert "WORK" in nats_cli(url, "consumer", "ls", orders)
    assert "WORK" in nats_cli(url, "consumer", "report", orders)


def test_pub_and_sub(url: str, shared: Cluster) -> None:
    nats_cli(url, "--version")
    command = ["nats", "--no-context", "-s", url, "sub", "cli.news", "--count", "1", "--raw"]
    listener = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        until_interest(shared, b"cli.news", b"read all about it")
        out, err = listener.communicate(timeout=20)
        assert "read all about it" in out
        assert listener.returncode == 0, err
    finally:
        listener.kill()
        listener.wait()


def test_req_with_a_responder(url: str, shared: Cluster) -> None:
    nats_cli(url, "--version")
    command = ["nats", "--no-context", "-s", url, "reply", "cli.ask", "an answer"]
    responder = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until_interest(shared, b"cli.ask", b"?")
        assert "an answer" in nats_cli(url, "req", "cli.ask", "a question", "--timeout", "10s")
    finally:
        responder.kill()
        responder.wait()


def until_interest(shared: Cluster, subject: bytes, payload: bytes) -> None:
    """Publishes with a reply until the server no longer answers 503: somebody listens, and got the message."""
    with Wire(shared.servers[0].port) as wire:
        wire.client()
        wire.send(b"SUB cli.box 1\r\n")
        for _ in range(2000):
            wire.seen = b""
            wire.send(b"PUB " + subject + b" cli.box %d\r\n" % len(payload) + payload + b"\r\nPING\r\n")
            if b"503" not in wire.until(b"PONG\r\n"):
                return
            os.sched_yield()
    raise AssertionError(f"nobody listens on {subject!r}")


def test_server_check_and_account_info(url: str, orders: str) -> None:
    assert "OK" in nats_cli(url, "server", "check", "jetstream")
    assert "OK" in nats_cli(url, "server", "check", "connection")
    assert "JetStream" in nats_cli(url, "account", "info")
