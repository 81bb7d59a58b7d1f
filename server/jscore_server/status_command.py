"""`jscore-server cluster status`: asks a running cluster, says what it comes to, and exits 0, 1 or 2."""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import ssl
import sys
import urllib.parse
import urllib.request
from typing import Any

import msgspec

from .cluster_status import BROKEN, Status, View, judge, text

ANSWER_MAX = 8 << 20
PING = "$SYS.REQ.SERVER.PING.CLUSTERZ"

EPILOG = """
exit codes: 0 healthy, 1 degraded (something is missing, nothing stands still), 2 no quorum somewhere, or unreachable.
Through the system account one server is enough, all others answer too. Monitoring ports tell of one server each, so
all are to be named.
"""


class Unreachable(Exception):
    """Nobody could be asked; the text says why."""


def main(argv: list[str]) -> int:
    """Runs `cluster ARGV`; returns the exit code."""
    options = _options(argv)
    try:
        views = _pages(options) if options.monitor else asyncio.run(_answers(options))
    except Unreachable as err:
        status = Status(BROKEN, "unreachable", f"Start a server, or ask at another address: {err}.")
    else:
        status = judge(views)
    if options.json:
        print(json.dumps(msgspec.to_builtins(status), indent=2))
    elif status.verdict == "unreachable":
        print(f"unreachable\nNext: {status.next_step}")
    else:
        print(text(status))
    return status.code


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="jscore-server cluster status",
        description="Servers, versions, quorums and lags of a running cluster, and which server may be stopped next.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    env = os.environ
    parser.add_argument("word", choices=["status"], metavar="status")
    parser.add_argument(
        "--server",
        "-s",
        default=env.get("NATS_URL", "nats://127.0.0.1:4222"),
        metavar="URL[,URL...]",
        help="clients' URL of any server, or of several (NATS_URL)",
    )
    parser.add_argument("--user", default=env.get("NATS_USER"), help="user of the system account (NATS_USER)")
    parser.add_argument("--password", default=env.get("NATS_PASSWORD"), help="others see it: rather NATS_PASSWORD")
    parser.add_argument("--creds", default=env.get("NATS_CREDS"), metavar="FILE", help="credentials (NATS_CREDS)")
    parser.add_argument("--tlsca", default=env.get("NATS_CA"), metavar="FILE", help="certificate authority (NATS_CA)")
    parser.add_argument("--monitor", default="", metavar="URL[,URL...]", help="monitoring ports to ask instead")
    parser.add_argument("--timeout", type=float, default=2.0, metavar="SECONDS", help="for answers (2)")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(argv)


def _pages(options: argparse.Namespace) -> list[View]:
    """From monitoring ports. Raises: Unreachable."""
    views, errors = [], []
    for url in options.monitor.split(","):
        try:
            views.append(_page(url.strip(), options))
        except (OSError, ValueError) as err:
            errors.append(f"{urllib.parse.urlsplit(url).netloc.rpartition('@')[2]}: {err}")
    if not views:
        raise Unreachable("; ".join(errors))
    return views


def _page(url: str, options: argparse.Namespace) -> View:
    parts = urllib.parse.urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"{parts.scheme} is no monitoring port")
    credentials, _, place = parts.netloc.rpartition("@")
    request = urllib.request.Request(f"{parts.scheme}://{place}{parts.path.rstrip('/')}/clusterz")
    if credentials:
        known = urllib.parse.unquote(credentials).encode()
        request.add_header("Authorization", "Basic " + base64.b64encode(known).decode())
    context = ssl.create_default_context(cafile=options.tlsca) if parts.scheme == "https" else None
    with urllib.request.urlopen(request, timeout=options.timeout, context=context) as answer:
        return _view(answer.read(ANSWER_MAX))


def _view(data: bytes) -> View:
    """Raises: ValueError."""
    view = json.loads(data)
    if not isinstance(view, dict) or "name" not in view or "jetstream" not in view:
        raise ValueError("that is no answer of a jscore-server")
    return view


async def _answers(options: argparse.Namespace) -> list[View]:
    """From the system account: all servers answer. Raises: Unreachable."""
    try:
        import nats
    except ModuleNotFoundError:
        raise Unreachable(
            "the system account is asked with nats-py (pip install jscore[tools]), or use --monitor"
        ) from None
    more: dict[str, Any] = {}
    if options.user:
        more |= {"user": options.user, "password": options.password or ""}
    if options.creds:
        more["user_credentials"] = options.creds
    if options.tlsca:
        more["tls"] = ssl.create_default_context(cafile=options.tlsca)

    async def quiet(err: Exception) -> None:
        """What goes wrong is said once, by the exception."""

    client, errors = None, []
    for url in options.server.split(","):
        try:
            connecting = nats.connect(url.strip(), allow_reconnect=False, error_cb=quiet, **more)
            client = await asyncio.wait_for(connecting, options.timeout)
            break
        except (OSError, TimeoutError, nats.errors.Error, ValueError) as err:
            errors.append(f"{url.rpartition('@')[2]}: {str(err) or type(err).__name__}")
    if client is None:
        raise Unreachable("; ".join(errors))
    try:
        return await _ask(client, options.timeout)
    finally:
        with contextlib.suppress(OSError, TimeoutError, nats.errors.Error):
            await client.close()


async def _ask(client: Any, seconds: float) -> list[View]:
    loop = asyncio.get_running_loop()
    inbox = client.new_inbox()
    got = await client.subscribe(inbox)
    await client.publish(PING, b"", reply=inbox)
    views: dict[str, View] = {}
    deadline = loop.time() + seconds
    while (left := deadline - loop.time()) > 0:
        try:
            msg = await got.next_msg(left)
        except TimeoutError:
            break
        if dict(msg.headers or {}).get("Status") == "503":
            raise Unreachable("nobody hears the system account there: is it a user of that account?")
        with contextlib.suppress(ValueError, AttributeError):
            view = _view(json.dumps(json.loads(msg.data).get("data")).encode())
            views[view["name"]] = view
        voters = {name for view in views.values() for name in view.get("meta", {}).get("voters", ())}
        if voters and voters <= views.keys() and any("well" in view.get("meta", {}) for view in views.values()):
            break
        if any(not view.get("clustered", True) for view in views.values()):
            break  # alone
    return list(views.values())


if __name__ == "__main__":
    sys.exit(main(["status", *sys.argv[1:]]))
