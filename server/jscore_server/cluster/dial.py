"""Connections to other servers: addresses, dialling, and how long to wait between attempts."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from urllib.parse import urlsplit

Address = tuple[str, int]

DIAL_TIMEOUT_S = 1.0
QUICK_S = 0.1  # a peer that starts beside this server is found soon
QUICK_ATTEMPTS = 10
RETRY_S = 1.0
BACKOFF_MAX_S = 30.0
JITTER_S = 0.1


def pause(failures: int, *, backoff: bool) -> float:
    """Seconds to wait after `failures` attempts in a row that led nowhere, 0 after a connection that had lived."""
    jitter = random.uniform(0, JITTER_S)  # two servers that dial each other must not do so in step for ever
    if failures == 0:
        return jitter
    if backoff:
        return min(RETRY_S * 2.0 ** min(failures - 1, 10), BACKOFF_MAX_S) + jitter
    return (QUICK_S if failures < QUICK_ATTEMPTS else RETRY_S) + jitter


def url_address(url: str) -> Address:
    """(host, port) of a nats-route URL. Raises ValueError."""
    parts = urlsplit(url)
    if not parts.hostname or not parts.port:
        raise ValueError(f"no host and port in {url!r}")
    return (parts.hostname, parts.port)


def address_url(address: Address) -> str:
    host, port = address
    return f"nats-route://{f'[{host}]' if ':' in host else host}:{port}/"


async def dial(host: str, port: int) -> socket.socket:
    """A connected non-blocking socket, IPv4 first. Raises OSError (also on timeout)."""
    loop = asyncio.get_running_loop()
    try:
        found = await asyncio.wait_for(loop.getaddrinfo(host, port, type=socket.SOCK_STREAM), DIAL_TIMEOUT_S)
    except TimeoutError:
        raise OSError(f"{host}: name lookup took too long") from None
    except (OSError, UnicodeError, OverflowError) as err:  # a peer may say any name and number of itself and of others
        raise OSError(f"dial tcp {host}:{port}: {getattr(err, 'strerror', None) or err}") from None
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    failure: OSError = OSError(f"{host}: no address")
    for family, kind, proto, _, address in found[:4]:
        sock = socket.socket(family, kind, proto)
        try:
            sock.setblocking(False)
            await asyncio.wait_for(loop.sock_connect(sock, address), DIAL_TIMEOUT_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if sock.getsockname() == sock.getpeername():  # a self-connect to a free ephemeral port
                raise OSError(f"{host}:{port}: connection refused")
            return sock
        except TimeoutError:
            failure = OSError(f"dial tcp {host}:{port}: i/o timeout")
        except OSError as err:
            failure = OSError(f"dial tcp {host}:{port}: {err.strerror or err}")
        except asyncio.CancelledError:
            sock.close()
            raise
        with contextlib.suppress(OSError):
            sock.close()
    raise failure
