"""Listening sockets: bound here, or inherited from who started the server; and the addresses of this machine."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
from ipaddress import ip_address

__all__ = ["every_address", "interface_addresses", "listen", "shown"]

LISTEN_BACKLOG = 4096
FIRST_INHERITED = 3  # SD_LISTEN_FDS_START
INHERITED_MAX = 64
SIOCGIFADDR = 0x8915
ANY = ("", "0.0.0.0")


def shown(host: str, port: int | None) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, IPv4 first for names; without a host (or with 0.0.0.0) it takes both kinds of addresses.

    One that was handed over for this address (LISTEN_FDS, as systemd does) is used instead of a new one. Raises OSError
    with the address in its text.
    """
    sock = _inherited(host, port)
    if sock is None:
        try:
            sock = _bound(host, max(port, 0))
        except OSError as err:
            raise OSError(f"Error listening on {shown(host, port)}: {err.strerror or err}") from err
    sock.setblocking(False)
    return sock


def _bound(host: str, port: int) -> socket.socket:
    if host in ANY:
        try:
            return _open(socket.AF_INET6, ("::", port), both=True)
        except OSError as err:
            if err.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                raise  # there is IPv6, the port is the trouble
    found = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    family, _, _, _, address = found[0]
    return _open(family, address, both=host == "::")


def _open(family: int, address: tuple[object, ...], *, both: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both)
        sock.bind(address)
        sock.listen(LISTEN_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _inherited(host: str, port: int) -> socket.socket | None:
    """The socket among those handed over to this process that listens on the address."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not os.environ.get("LISTEN_FDS", "").isdecimal():
        return None
    wanted = "::" if host in ANY else host
    for fd in range(FIRST_INHERITED, FIRST_INHERITED + min(INHERITED_MAX, int(os.environ["LISTEN_FDS"]))):
        try:
            sock = socket.socket(fileno=os.dup(fd))
        except OSError:
            continue
        name = sock.getsockname() if sock.family in (socket.AF_INET, socket.AF_INET6) else ("", -1)
        listens = sock.type == socket.SOCK_STREAM and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if listens and name[1] == port and _same(name[0], wanted):
            os.set_inheritable(sock.fileno(), False)
            return sock
        sock.close()
    return None


def _same(bound: str, wanted: str) -> bool:
    if bound == "0.0.0.0":
        bound = "::"
    with contextlib.suppress(ValueError):
        return ip_address(bound) == ip_address(wanted)
    with contextlib.suppress(OSError):
        return any(entry[4][0] == bound for entry in socket.getaddrinfo(wanted, None, type=socket.SOCK_STREAM))
    return False


def interface_addresses() -> list[str]:
    """IPv4 addresses of this machine's interfaces, loopback only when there is nothing else."""
    addresses = [address for _, address in _ipv4()]
    outside = [address for address in addresses if not address.startswith("127.")]
    return outside or ["127.0.0.1"]


def every_address(*, ipv6: bool) -> list[str]:
    """All addresses of this machine, interface by interface."""
    found = _ipv4() + (_ipv6() if ipv6 else [])
    names = [name for _, name in socket.if_nameindex()]
    return [address for _, address in sorted(found, key=lambda pair: names.index(pair[0]))]


def _ipv4() -> list[tuple[str, str]]:
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", os.fsencode(name)[:15])
            with contextlib.suppress(OSError):
                found.append((name, socket.inet_ntoa(fcntl.ioctl(probe.fileno(), SIOCGIFADDR, request)[20:24])))
    return found


def _ipv6() -> list[tuple[str, str]]:
    found = []
    names = {name for _, name in socket.if_nameindex()}
    with contextlib.suppress(OSError, ValueError), open("/proc/net/if_inet6", encoding="ascii") as lines:
        for line in lines:
            digits, *_, name = line.split()
            if name in names:
                found.append((name, socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits))))
    return found
