"""Lines of the log go to a syslog server by datagrams or by a stream, and nobody waits for it."""

from __future__ import annotations

import os
import re
import socket

import pytest
from jscore_server.syslog import Syslog

LINE = rf"<(\d+)>\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\S+ \S+ here\[{os.getpid()}\]: (.*)\n"


@pytest.mark.parametrize("address", ["udp://127.0.0.1:{}", "127.0.0.1:{}"])
def test_a_line_is_a_datagram(address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(30)
        syslog = Syslog(address.format(server.getsockname()[1]), "here")
        try:
            assert syslog.line("INF", "one")
            assert syslog.line("ERR", "two\N{BULLET}")
            found = [re.fullmatch(LINE, server.recv(65536).decode()) for _ in range(2)]
        finally:
            syslog.close()
    assert [match and match.groups() for match in found] == [("5", "one"), ("3", "two\N{BULLET}")]


def test_lines_follow_each_other_in_a_stream() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        syslog = Syslog(f"tcp://127.0.0.1:{server.getsockname()[1]}", "here")
        taken, _ = server.accept()
        with taken, taken.makefile("r", encoding="utf-8", newline="\n") as lines:
            taken.settimeout(30)
            assert syslog.line("WRN", "one")
            assert syslog.line("DBG", "two")
            syslog.close()
            found = [re.fullmatch(LINE, line) for line in lines]
    assert [match and match.groups() for match in found] == [("5", "one"), ("7", "two")]


def test_a_stream_that_nobody_reads_loses_lines_and_holds_nobody_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        syslog = Syslog(f"tcp://127.0.0.1:{server.getsockname()[1]}", "here")
        try:
            taken = [syslog.line("INF", "x" * 65000) for _ in range(2000)]
        finally:
            syslog.close()
    assert taken[0]
    assert not taken[-1]


@pytest.mark.parametrize("address", ["http://127.0.0.1:514", "udp://127.0.0.1", "tcp://:514"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="error connecting to syslog"):
        Syslog(address, "here")
