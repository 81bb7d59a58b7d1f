"""The example's cluster on this machine, and the story that shows what it is for.

`Cluster` starts the three configuration files of `server/conf` on loopback with hosts and ports substituted; `Story`
is 64 publishers that never pause while servers die, and the check that nothing acknowledged was lost. `./dev run` shows
them to a person, `tests/cluster` asserts them. The client is nats-py, so what holds here holds for any other.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import nats
from nats.aio.client import Client
from nats.errors import Error as NatsError

HOSTS = ("host_a", "host_b", "host_c")
LIBC = ctypes.CDLL(None)
FIRST_PATIENCE_S = 0.25
LOWEST_PORT = 12000
FAVOURITE_PORTS = ((4222, 4223, 4224), (6222, 6223, 6224))


def free_ports(count: int) -> list[int]:
    """Loopback TCP ports that nobody listens on now.

    They lie below those that the kernel gives to connections going out: one of these cannot take the port of a server
    while that is down.
    """
    ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    places = range(LOWEST_PORT, ephemeral if ephemeral > 2 * LOWEST_PORT else 65536)
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        for port in random.sample(places, 50 * count):
            sock = stack.enter_context(socket.socket())
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
            if len(found) == count:
                return found
    raise OSError(f"not {count} free ports among {50 * count}")


def favourite_ports() -> tuple[list[int], list[int]]:
    """The ports a person expects (4222..., 6222...) when all are free, else any."""
    try:
        with contextlib.ExitStack() as stack:
            for port in (*FAVOURITE_PORTS[0], *FAVOURITE_PORTS[1]):
                sock = stack.enter_context(socket.socket())
                # As the daemon does: a port whose last connections linger in TIME_WAIT is free.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(("127.0.0.1", port))
        return list(FAVOURITE_PORTS[0]), list(FAVOURITE_PORTS[1])
    except OSError:
        ports = free_ports(6)
        return ports[:3], ports[3:]


def die_with_parent() -> None:
    """Run in a child before exec: it gets SIGKILL when whoever started it dies, however that happened (Linux)."""
    pr_set_pdeathsig = 1
    LIBC.prctl(pr_set_pdeathsig, signal.SIGKILL)


def daemon() -> list[str]:
    """The daemon's command: JSCORE_TEST_SERVER, else the one installed beside this interpreter."""
    named = os.environ.get("JSCORE_TEST_SERVER")
    return named.split() if named else [str(Path(sys.executable).parent / "jscore-server")]


def example_files(folder: Path) -> list[Path]:
    """The example's three files, in the order of their server names."""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.conf")):
        match = re.search(r"^server_name\s*[=:]\s*\"?(server[123])\b", path.read_text(), re.MULTILINE)
        if match:
            found.setdefault(match.group(1), path)
    if len(found) != len(HOSTS):
        raise FileNotFoundError(f"{folder}: expected the example's three files, found {sorted(found) or 'none'}")
    return [found[name] for name in sorted(found)]


def substitute(text: str, *, client: str, store: Path, route_listen: str, routes: Mapping[str, str]) -> str:
    """The same file for another place: its addresses, its store and its routes' hosts, nothing else.

    `routes` maps host_a, host_b, host_c to `host:port`.
    """
    text = re.sub(r"^listen(\s*[=:]\s*)\S+", rf"listen\g<1>{client}", text, count=1, flags=re.MULTILINE)
    text = re.sub(r"(store_dir\s*[=:]\s*)\S+", lambda m: f'{m.group(1)}"{store}"', text, count=1)
    text = re.sub(r"^(\s+listen\s*[=:]\s*)\S+", rf"\g<1>{route_listen}", text, count=1, flags=re.MULTILINE)
    for host, address in routes.items():
        text = re.sub(rf"(nats-route://){host}:\d+", rf"\g<1>{address}", text)
    return text


@dataclass
class Server:
    """One daemon: its configuration, its log file and, while it runs, its process."""

    name: str
    command: list[str]
    conf: Path
    log: Path
    port: int
    route_port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Starts the process in a session of its own, so that Ctrl-C reaches only whoever started us."""
        assert not self.running, f"{self.name} runs already"
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [*self.command, "-c", str(self.conf)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def must_run(self) -> None:
        """Raises RuntimeError with the end of the log when the process ended by itself."""
        if not self.running:
            code = self.process.returncode if self.process else None
            raise RuntimeError(f"{self.name} ended by itself with {code}, the end of its log:\n{self.tail()}")

    def kill(self) -> None:
        """SIGKILL, and waits until the process is gone."""
        if self.process is not None:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait()

    def stop(self, seconds: float = 15) -> int | None:
        """SIGTERM, then SIGKILL after `seconds`; returns the exit code, None when it never ran."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.process.returncode

    def tail(self, lines: int = 20) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])


class Cluster:
    """The example's three servers with everything they write under one directory."""

    def __init__(
        self,
        conf: Path,
        home: Path,
        command: list[str],
        ports: tuple[list[int], list[int]] | None = None,
        *,
        edit: Callable[[int, str], str] | None = None,
    ) -> None:
        """`ports` is (client ports, route ports); `edit(i, text)` may change the text of server i (from 0)."""
        home.mkdir(parents=True, exist_ok=True)
        if ports is None:
            free = free_ports(6)
            ports = free[:3], free[3:]
        client, route = ports
        routes = {host: f"localhost:{port}" for host, port in zip(HOSTS, route, strict=True)}
        self.home = home
        self.servers: list[Server] = []
        for i, source in enumerate(example_files(conf)):
            text = substitute(
                source.read_text(),
                client=f"127.0.0.1:{client[i]}",
                store=home / f"server{i + 1}",
                route_listen=f"localhost:{route[i]}",
                routes=routes,
            )
            target = home / f"server{i + 1}.conf"
            target.write_text(edit(i, text) if edit else text)
            log = home / f"server{i + 1}.log"
            self.servers.append(Server(f"server{i + 1}", command, target, log, client[i], route[i]))

    def __getitem__(self, name: str) -> Server:
        return next(server for server in self.servers if server.name == name)

    def __iter__(self) -> Iterator[Server]:
        return iter(self.servers)

    @property
    def urls(self) -> list[str]:
        return [server.url for server in self.servers]

    def start(self) -> None:
        for server in self.servers:
            if not server.running:
                server.start()

    def stop(self) -> None:
        """Asks all to stop at once, then waits for each."""
        for server in self.servers:
            if server.process is not None and server.process.poll() is None:
                server.process.terminate()
        for server in self.servers:
            server.stop()

    def kill(self) -> None:
        """SIGKILL for all before any is waited for: as close to one moment as a program gets."""
        for server in self.servers:
            if server.process is not None and server.process.poll() is None:
                server.process.kill()
        for server in self.servers:
            server.kill()


async def connect(urls: str | list[str], **options: Any) -> Client:
    """A nats-py client that never gives up reconnecting, unless told, and keeps its own complaints to itself."""

    async def quiet(_: Exception) -> None:
        return None

    settings: dict[str, Any] = {
        "connect_timeout": 2,
        "reconnect_time_wait": 0.1,
        # Without reconnecting the first attempt counts: -1 would have nats-py try a dead server for ever.
        "max_reconnect_attempts": -1 if options.get("allow_reconnect", True) else 1,
        "error_cb": quiet,
        **options,
    }
    return await asyncio.wait_for(nats.connect(urls, **settings), 30)


async def eventually(condition: Callable[[], Awaitable[Any]], seconds: float, what: str) -> Any:
    """Asks `condition` until it is true and returns its value; what the network says meanwhile is not an answer.

    Raises: TimeoutError naming `what` and the last exception seen.
    """
    deadline = time.monotonic() + seconds
    last: BaseException | None = None
    while True:
        try:
            value = await condition()
            if value:
                return value
        except (TimeoutError, NatsError, OSError, ApiError) as err:
            last = err
        if time.monotonic() >= deadline:
            raise TimeoutError(f"{what}: not within {seconds} s (last: {last!r})")
        await asyncio.sleep(0.02)


class ApiError(Exception):
    """An error answer of the JetStream API: `code` (HTTP-like), `err_code` (the stable number), text."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        self.code = int(error.get("code", 0))
        self.err_code = int(error.get("err_code", 0))
        super().__init__(f"{self.code}/{self.err_code} {error.get('description', '')}")


async def api(client: Client, subject: str, body: object = None, *, seconds: float = 5) -> dict[str, Any]:
    """One request to `$JS.API.<subject>`, decoded. Raises: ApiError, nats-py's errors."""
    payload = b"" if body is None else json.dumps(body).encode()
    answer: dict[str, Any] = json.loads((await client.request(f"$JS.API.{subject}", payload, timeout=seconds)).data)
    if "error" in answer:
        raise ApiError(answer["error"])
    return answer


async def ready(servers: list[Server], seconds: float = 30) -> None:
    """Returns once every one of the servers answers `$JS.API.INFO` without an error."""
    for server in servers:

        async def answers(server: Server = server) -> bool:
            server.must_run()
            client = await connect(server.url, allow_reconnect=False)
            try:
                await api(client, "INFO", seconds=2)
            finally:
                await client.close()
            return True

        await eventually(answers, seconds, f"{server.name} ready")


@dataclass
class Progress:
    """What the story's viewer sees after every step."""

    text: str
    acked: int
    retried: int
    rate: float
    gaps: list[float]


class Viewer(Protocol):
    """Shows progress: `step` once per chapter, `tick` several times a second."""

    def step(self, text: str) -> None: ...
    def tick(self, progress: Progress) -> None: ...


class PlainViewer:
    """One line per chapter and one per second: for logs and pipes."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.shown = 0.0

    def step(self, text: str) -> None:
        print(f"[{time.monotonic() - self.started:6.1f}s] {text}", flush=True)

    def tick(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self.shown >= 1:
            self.shown = now
            self.step(f"    {progress.acked:,} acknowledged, {progress.rate:,.0f}/s, {progress.retried:,} retries")


class RichViewer:
    """A live status line under the chapters: for terminals."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console()
        self.status = self.console.status("starting")
        self.status.start()
        self.started = time.monotonic()

    def step(self, text: str) -> None:
        self.console.print(f"[dim]{time.monotonic() - self.started:6.1f}s[/] {text}", highlight=False)

    def tick(self, progress: Progress) -> None:
        gaps = ", ".join(f"{gap:.2f}s" for gap in progress.gaps) or "none yet"
        self.status.update(
            f"[bold green]{progress.acked:,}[/] acknowledged  [cyan]{progress.rate:,.0f}/s[/]  "
            f"{progress.retried:,} retries  failover gaps: {gaps}"
        )

    def close(self) -> None:
        self.status.stop()


class NoViewer:
    """For tests."""

    def step(self, text: str) -> None:
        return None

    def tick(self, progress: Progress) -> None:
        return None


@dataclass
class Story:
    """Publishers that never pause, and what each acknowledgement promised."""

    cluster: Cluster
    viewer: Viewer = field(default_factory=NoViewer)
    publishers: int = 64
    stream: str = "STORY"
    subject: str = "story.*"
    acked: dict[str, int] = field(default_factory=dict)  # message id -> sequence promised for it
    twice: list[str] = field(default_factory=list)  # ids whose acknowledgements named two sequences
    retried: int = 0
    gaps: list[float] = field(default_factory=list)  # seconds from a kill to the next acknowledgement
    killed: float = float("inf")  # when the leader was dead for certain
    answered: float = 0.0  # when a message sent after that was first acknowledged

    async def create(self, client: Client, replicas: int = 3) -> None:
        """Creates the stream; waits for as long as the cluster still gathers its members."""
        config = {
            "name": self.stream,
            "subjects": [self.subject],
            "num_replicas": replicas,
            "storage": "file",
            "retention": "limits",
            "duplicate_window": 3_600_000_000_000,  # publishers begin anew with their first number
        }

        async def created() -> bool:
            await api(client, f"STREAM.CREATE.{self.stream}", config)
            return True

        await eventually(created, 30, "stream created")

    async def publisher(self, client: Client, number: int, stop: asyncio.Event) -> None:
        """Numbered messages, one after the other, each sent again under the same id until it is acknowledged.

        What was on its way to a leader that died is never answered, so the first patience is short: it would be the
        longest part of every gap. It grows with each try, so that a slow cluster is not flooded.
        """
        subject = self.subject.replace("*", str(number))
        count = 0
        while not stop.is_set():
            identity = f"{number}.{count}"
            patience = FIRST_PATIENCE_S
            while True:
                sent = time.monotonic()
                try:
                    answer = await client.request(
                        subject, identity.encode(), timeout=patience, headers={"Nats-Msg-Id": identity}
                    )
                    ack = json.loads(answer.data)
                    if "seq" in ack and "error" not in ack:
                        break
                except (TimeoutError, NatsError, OSError):
                    patience = min(2 * patience, 2.0)
                self.retried += 1
                await asyncio.sleep(0.02)  # nobody leads: asking faster would not elect anybody
            if self.acked.setdefault(identity, ack["seq"]) != ack["seq"]:
                self.twice.append(identity)
            if sent > self.killed and not self.answered:
                self.answered = time.monotonic()
            count += 1

    @contextlib.asynccontextmanager
    async def publishing(self) -> Any:
        """Publishes from all publishers while the block runs; every one has its acknowledgement when it ends."""
        stop = asyncio.Event()
        clients = [await connect(self.cluster.urls) for _ in range(4)]
        tasks = [
            asyncio.create_task(self.publisher(clients[number % len(clients)], number, stop))
            for number in range(self.publishers)
        ]
        showing = asyncio.create_task(self.show())
        try:
            yield
            stop.set()
            await asyncio.wait_for(asyncio.gather(*tasks), 60)
        finally:
            stop.set()
            running = {task for task in (*tasks, showing) if not task.done()}
            while running:  # wait_for before Python 3.12 can swallow a cancellation, so ask until all are gone
                for task in running:
                    task.cancel()
                running = (await asyncio.wait(running, timeout=0.5))[1]
            for client in clients:
                await client.close()

    async def show(self) -> None:
        before, at = len(self.acked), time.monotonic()
        while True:
            await asyncio.sleep(0.25)
            now = time.monotonic()
            rate = (len(self.acked) - before) / (now - at)
            before, at = len(self.acked), now
            self.viewer.tick(Progress("", len(self.acked), self.retried, rate, self.gaps))

    async def more(self, count: int, seconds: float = 60) -> None:
        """Waits for `count` further acknowledgements."""
        target = len(self.acked) + count

        async def enough() -> bool:
            return len(self.acked) >= target

        await eventually(enough, seconds, f"{count} further acknowledgements")

    async def info(self, client: Client) -> dict[str, Any]:
        return await api(client, f"STREAM.INFO.{self.stream}", seconds=2)

    async def leader(self, client: Client, seconds: float = 30) -> str:
        async def known() -> str:
            return str((await self.info(client))["cluster"].get("leader") or "")

        return str(await eventually(known, seconds, f"a leader of {self.stream}"))

    async def current(self, client: Client, names: set[str], *, caught_up: bool, seconds: float = 60) -> None:
        """Waits until the leader calls every one of `names` (leader aside) current, and without lag if `caught_up`."""
        cluster: dict[str, Any] = {}

        async def settled() -> bool:
            nonlocal cluster
            for name in names:
                self.cluster[name].must_run()
            cluster = (await self.info(client))["cluster"]
            good = {
                peer["name"]
                for peer in cluster.get("replicas", [])
                if peer.get("current") and not peer.get("offline") and not (caught_up and peer.get("lag", 0))
            }
            return names <= good | {cluster.get("leader", "")}

        try:
            await eventually(settled, seconds, f"{sorted(names)} current")
        except TimeoutError as err:
            raise TimeoutError(f"{err}; the leader says {cluster}") from None

    async def kill_leader(self, client: Client) -> Server:
        """Kills the stream's leader without warning and notes how long nothing was acknowledged."""
        server = self.cluster[await self.leader(client)]
        killed = time.monotonic()
        server.kill()
        self.answered, self.killed = 0.0, time.monotonic()  # what was sent before may still be answered from a socket

        async def acknowledged() -> bool:
            return self.answered > 0

        await eventually(acknowledged, 60, "an acknowledgement after the leader's death")
        self.gaps.append(self.answered - killed)
        self.viewer.step(f"{server.name}, the leader, killed: next acknowledgement after {self.gaps[-1]:.2f} s")
        return server

    async def stored(self, client: Client) -> list[tuple[int, str]]:
        """Every stored message as (sequence, text), read by a pull consumer from the first to the last."""
        last = (await self.info(client))["state"]["last_seq"]
        name = f"check{time.monotonic_ns()}"
        config = {"name": name, "durable_name": name, "ack_policy": "none", "deliver_policy": "all"}
        created = {"stream_name": self.stream, "config": config}
        found: list[tuple[int, str]] = []

        async def made() -> bool:
            await api(client, f"CONSUMER.CREATE.{self.stream}.{name}", created)
            return True

        await eventually(made, 30, "a consumer to check with")
        inbox = client.new_inbox()
        subscription = await client.subscribe(inbox, pending_msgs_limit=-1, pending_bytes_limit=-1)
        try:
            while last and (not found or found[-1][0] < last):
                request = json.dumps({"batch": 1000, "expires": 2_000_000_000}).encode()
                await client.publish(f"$JS.API.CONSUMER.MSG.NEXT.{self.stream}.{name}", request, reply=inbox)
                for _ in range(1000):
                    message = await subscription.next_msg(timeout=10)
                    if message.headers and "Status" in message.headers:
                        break
                    found.append((int(message.reply.split(".")[-4]), message.data.decode()))
                    if found[-1][0] >= last:
                        break
        finally:
            await subscription.unsubscribe()
            with contextlib.suppress(NatsError, ApiError, asyncio.TimeoutError):
                await api(client, f"CONSUMER.DELETE.{self.stream}.{name}")
        return found

    async def verify(self, client: Client) -> list[str]:
        """What is wrong, in words: an empty list is the promise kept."""
        stored = await self.stored(client)
        where: dict[str, list[int]] = {}
        for sequence, text in stored:
            where.setdefault(text, []).append(sequence)
        wrong = [f"{text} is stored {len(at)} times: {at}" for text, at in where.items() if len(at) != 1]
        wrong += [f"{text} was acknowledged under two sequences" for text in self.twice]
        for text, sequence in self.acked.items():
            at = where.get(text)
            if at is None:
                wrong.append(f"{text}, acknowledged at {sequence}, is lost")
            elif at != [sequence]:
                wrong.append(f"{text}, acknowledged at {sequence}, is at {at}")
        sequences = [sequence for sequence, _ in stored]
        if sequences != list(range(1, len(sequences) + 1)):
            wrong.append("the stored sequences are not 1, 2, 3 ... without a gap")
        return wrong

    async def play(self, kills: int = 3, between: int = 2000) -> list[str]:
        """The whole story: kills of the leader under load, then all three at once. Returns what is wrong."""
        names = {server.name for server in self.cluster}
        client = await connect(self.cluster.urls)
        try:
            await self.create(client)
            self.viewer.step(f"stream {self.stream} with three replicas, led by {await self.leader(client)}")
            async with self.publishing():
                for _ in range(kills):
                    await self.more(between)
                    dead = await self.kill_leader(client)
                    await self.more(between)
                    dead.start()
                    await self.current(client, names, caught_up=False)
                    self.viewer.step(f"{dead.name} came back and is current again")
            await self.current(client, names, caught_up=True)
            wrong = await self.verify(client)
            self.viewer.step(self.verdict(wrong))
            self.viewer.step("all three killed at once, and started again")
            self.cluster.kill()
            self.cluster.start()
            await ready(self.cluster.servers, 60)
            await self.leader(client, 60)
            await self.current(client, names, caught_up=True)
            again = await self.verify(client)
            self.viewer.step(self.verdict(again))
            return wrong + again
        finally:
            await client.close()

    def verdict(self, wrong: list[str]) -> str:
        if wrong:
            return f"{len(wrong)} PROMISES BROKEN, the first: {wrong[0]}"
        return f"{len(self.acked):,} acknowledged messages: each there, once, at its sequence"


async def run(options: argparse.Namespace) -> int:
    """Starts the cluster, does what was asked, stops the cluster; SIGINT and SIGTERM end it at any point."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sign, stop.set)
    home: Path = options.home
    if options.demo:
        shutil.rmtree(home, ignore_errors=True)  # the story counts from sequence 1
    cluster = Cluster(Path(options.conf), home, options.server.split(), favourite_ports())
    playing = asyncio.create_task(show(cluster, demo=options.demo))
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({playing, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if playing.done():
            return playing.result()
        return 130 if options.demo else 0
    except (RuntimeError, TimeoutError, OSError) as err:
        print(f"{err}", file=sys.stderr)
        return 1
    finally:
        for task in (playing, stopped):
            task.cancel()
        await asyncio.gather(playing, stopped, return_exceptions=True)
        print("stopping", flush=True)
        cluster.stop()


async def show(cluster: Cluster, *, demo: bool) -> int:
    """The story with its exit code, or the bare cluster for as long as all of it runs. Raises: RuntimeError."""
    cluster.start()
    await ready(cluster.servers)
    print(f"JetStream is ready: {','.join(cluster.urls)}")
    print(f"logs and stores: {cluster.home}")
    if not demo:
        print("Ctrl-C stops all three.", flush=True)
        while True:
            await asyncio.sleep(1)
            for server in cluster:
                server.must_run()
    viewer = RichViewer() if sys.stdout.isatty() else PlainViewer()
    try:
        return 1 if await Story(cluster, viewer).play() else 0
    finally:
        if isinstance(viewer, RichViewer):
            viewer.close()


def main(argv: list[str] | None = None) -> int:
    """`python -m jscore_server.demo`: see `./dev run`."""
    parser = argparse.ArgumentParser(prog="./dev run", description="the example's cluster on this machine")
    parser.add_argument("--demo", action="store_true", help="also play the story: publishers, kills, verification")
    parser.add_argument("--conf", default="server/conf", help="folder of the example's three files")
    parser.add_argument(
        "--home", default=".run", type=lambda text: Path(text).resolve(), help="folder for stores and logs"
    )
    parser.add_argument("--server", default=" ".join(daemon()), help="the daemon's command")
    return asyncio.run(run(parser.parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
