"""Datagrams beside the links: a host that is stopped is missed by them."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from harness import Lab, is_peer, ready, wait_for_log

pytestmark = pytest.mark.skipif(is_peer(), reason="a setting of ours")


def test_a_stopped_host_is_missed_by_its_datagrams(lab: Lab) -> None:
    hosts = lab.hosts(["h1", "h2"])
    for server in hosts.servers:
        text = server.conf.read_text()
        server.conf.write_text(text.replace("name: many,", "name: many, udp_hints: true,"))
    hosts.start()
    asyncio.run(ready(hosts.servers))
    here, there = hosts.servers
    wait_for_log(here, "Listening for liveness hints on localhost:")
    os.kill(there.pid, signal.SIGSTOP)
    try:
        wait_for_log(here, r"h2 is silent: nothing for \d+ ms, nor by datagrams")
    finally:
        os.kill(there.pid, signal.SIGCONT)
    asyncio.run(ready(hosts.servers))
