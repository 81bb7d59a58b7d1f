"""The PROXY protocol on the client port: the address a proxy speaks for, and what no header is."""

from __future__ import annotations

import socket
import ssl
import struct
from pathlib import Path

import pytest
from certificates import Authority
from harness import Lab, Server, Wire, ours, wait_for_log

CONNECT = b'CONNECT {"verbose":false,"pedantic":false,"protocol":1}\r\nPING\r\n'
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V4 = socket.inet_aton("1.2.3.4") + socket.inet_aton("5.6.7.8") + struct.pack(">HH", 1111, 2222)
V6 = socket.inet_pton(socket.AF_INET6, "2001:db8::1") * 2 + struct.pack(">HH", 1111, 2222)
LINE = b"PROXY TCP4 1.2.3.4 5.6.7.8 1111 2222\r\n"


def binary(command: int, family: int, body: bytes, version: int = 2) -> bytes:
    return SIGNATURE + bytes([version << 4 | command, family]) + struct.pack(">H", len(body)) + body


def start(lab: Lab, extra: str = "") -> Server:
    server = lab.server("behind", f"listen: 127.0.0.1:PORT\ndebug: true\nproxy_protocol: true\n{extra}\n")
    server.start()
    wait_for_log(server, "Server is ready")
    return server


@pytest.mark.parametrize(
    ("header", "address"),
    [
        (b"", "127.0.0.1"),
        (LINE, "1.2.3.4"),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n", "2001:db8::1"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
        (b"PROXY UNKNOWN a b c d\r\n", "127.0.0.1"),
        (binary(1, 0x11, V4), "1.2.3.4"),
        (binary(1, 0x21, V6), "2001:db8::1"),
        (binary(0, 0, b""), "127.0.0.1"),
        (binary(0, 0x11, V4), "127.0.0.1"),
        (binary(1, 0x11, V4 + b"z" * 5000), "1.2.3.4"),
    ],
)
def test_the_address_a_proxy_speaks_for(lab: Lab, header: bytes, address: str) -> None:
    server = start(lab)
    with Wire(server.port) as wire:
        assert b"client_ip" not in wire.until(b"\r\n")
        wire.send(header + CONNECT)
        assert b'"client_ip":"%s"' % address.encode() in wire.until(b'"connect_info":true')


def test_a_header_may_come_byte_by_byte(lab: Lab) -> None:
    server = start(lab)
    for header in (LINE, binary(1, 0x11, V4 + b"\x04\0\1x")):
        with Wire(server.port) as wire:
            wire.until(b"\r\n")
            for byte in header + CONNECT:
                wire.send(bytes([byte]))
            assert b'"client_ip":"1.2.3.4"' in wire.until(b'"connect_info":true')
    with Wire(server.port) as wire:  # what begins like a header and is none
        wire.until(b"\r\n")
        for byte in b"PING\r\n":
            wire.send(bytes([byte]))
        wire.until(b"PONG\r\n")


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1111\r\n",
        b"PROXY TCP4 1.2.3 5.6.7.8 1111 2222\r\n",
        b"PROXY TCP4 2001:db8::1 5.6.7.8 1111 2222\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 99999 2222\r\n",
        b"PROXY UDP4 1.2.3.4 5.6.7.8 1111 2222\r\n",
        LINE.replace(b"\r", b""),
        b"PROXY " + b"x" * 200 + b"\r\n",
        binary(1, 0x12, V4),
        binary(1, 0x31, b"x" * 216),
        binary(1, 0x11, V4[:5]),
        binary(2, 0x11, V4),
        binary(1, 0x11, V4, version=3),
        SIGNATURE[:8] + b"XYZW",
    ],
)
def test_a_bad_header_closes_the_connection(lab: Lab, header: bytes) -> None:
    server = start(lab)
    with Wire(server.port) as wire:
        info = wire.until(b"\r\n")
        wire.send(header + CONNECT)
        assert wire.until_closed() == info
    wait_for_log(server, "Error reading PROXY protocol header from 127.0.0.1:")
    wait_for_log(server, "Client connection closed: Protocol Violation")


@ours
def test_a_header_that_does_not_come_is_not_waited_for(lab: Lab) -> None:
    server = start(lab)
    with Wire(server.port) as wire:
        info = wire.until(b"\r\n")
        wire.send(b"PRO")
        assert wire.until_closed() == info


@pytest.mark.parametrize("first", ["", "handshake_first: true"])
def test_tls_begins_behind_the_header(lab: Lab, tmp_path: Path, first: str) -> None:
    authority = Authority(tmp_path / "certificates")
    authority.issue("server")
    files = f'cert_file: "{authority.home}/server.pem", key_file: "{authority.home}/server.key"'
    server = start(lab, f"tls {{ {files}, {first} }}")
    for header, address in ((LINE, b"1.2.3.4"), (b"", b"127.0.0.1")):
        with Wire(server.port) as wire:
            if not first:
                wire.until(b"\r\n")
            wire.send(header)
            context: ssl.SSLContext = authority.client()
            wire.sock = context.wrap_socket(wire.sock, server_hostname="localhost")
            wire.send(CONNECT)
            assert b'"client_ip":"%s"' % address in wire.until(b'"connect_info":true')
