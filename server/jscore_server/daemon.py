"""The one place that builds the real clock, disk, loop and network, and runs a server until a signal ends it."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
from collections.abc import Sequence

import jscore
from jscore_server.authentication import plaintext
from jscore_server.config.options import Options
from jscore_server.dataplane import Plane, PlaneSelector
from jscore_server.logs import Log
from jscore_server.server import Server
from jscore_server.version import NATS_VERSION, VERSION

NANOSECOND = 1_000_000_000
SIGNAL_NAMES = {signal.SIGINT: "interrupt", signal.SIGTERM: "terminated"}


def run(options: Options, warnings: Sequence[str] = ()) -> int:
    """Serves until SIGINT or SIGTERM; the exit code. `warnings` of the configuration go to the log first."""
    log = Log(
        options.log_file,
        debug=options.debug,
        trace=options.trace,
        logtime=options.logtime,
        logtime_utc=options.logtime_utc,
        size_limit=options.log_size_limit,
        max_num=options.log_max_num,
    )
    for warning in warnings:
        log.warn(warning)
    plane = Plane(
        max_payload=options.max_payload,
        max_control_line=options.max_control_line,
        max_pending=options.max_pending,
        ping_interval_ns=int(options.ping_interval * NANOSECOND),
        ping_max=options.ping_max,
        write_deadline_ns=int(options.write_deadline * NANOSECOND),
        max_subs=max(0, options.max_subscriptions),
        route_ping_interval_ns=int((options.cluster.ping_interval or 0) * NANOSECOND),
        route_ping_max=options.cluster.ping_max or 0,
        trace=options.trace,
    )
    raise_file_limit(log)
    selector = PlaneSelector(plane)
    loop = asyncio.SelectorEventLoop(selector)
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(_serve(options, log, plane, selector))
    finally:
        loop.close()
        plane.close()
        log.close()


def raise_file_limit(log: Log) -> None:
    """As many descriptors as the system lets this process have: each connection and each log takes some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as err:
        log.debug(f"The limit of {soft} open files stays: {err}")


async def _serve(options: Options, log: Log, plane: Plane, selector: PlaneSelector) -> int:
    loop = asyncio.get_running_loop()
    stopped = loop.create_future()

    def trapped(number: signal.Signals) -> None:
        log.info(f'Trapped "{SIGNAL_NAMES[number]}" signal')
        if number is signal.SIGTERM and server.facts.lame_duck:
            return  # it ends by itself; an interrupt still ends it now
        end()

    def end() -> None:
        if not stopped.done():
            stopped.set_result(0)

    def hangup() -> None:
        log.error("Reloading the configuration is not supported yet: nothing changed")

    try:
        server = Server(options, log, plane, os.urandom)
    except ValueError as err:
        log.fatal(str(err))
        return 1
    for number in SIGNAL_NAMES:
        loop.add_signal_handler(number, trapped, number)
    loop.add_signal_handler(signal.SIGUSR1, log.reopen)
    loop.add_signal_handler(signal.SIGUSR2, lambda: server.lame_duck(end))
    # Left to itself a hangup would kill the server of somebody who only wanted new options to count.
    loop.add_signal_handler(signal.SIGHUP, hangup)
    log.info(f"Starting jscore-server {VERSION}")
    log.info(f"  Version:  {NATS_VERSION}")
    log.info(f"  Name:     {server.facts.server_name}")
    log.info(f"  ID:       {server.facts.server_id}")
    if plaintext(options):
        log.warn("Plaintext passwords detected, use nkeys or bcrypt")
    runtime = None
    try:
        if options.jetstream.enabled:
            from jscore_server.jetstream.runtime import Runtime

            runtime = Runtime(server, loop)
            server.jetstream = runtime
            server.handlers.update(runtime.handlers())
        selector.dispatch = _dispatcher(plane, server, loop)
        server.start()
    except jscore.Locked:
        log.fatal(f"Can't start JetStream: another server uses the store directory {options.jetstream.store_dir!r}")
        return 1
    except (OSError, RuntimeError, ValueError, jscore.Error) as err:
        log.fatal(str(err))
        if runtime is not None:
            runtime.stop()
        return 1
    if options.pid_file:
        _write_pid(options.pid_file, log)
    gc.collect()
    gc.freeze()
    code = await stopped
    log.info("Initiating Shutdown...")
    server.stop()
    selector.dispatch = lambda: False
    log.info("Server Exiting..")
    return int(code)


def _dispatcher(plane: Plane, server: Server, loop: asyncio.AbstractEventLoop):  # type: ignore[no-untyped-def]
    """Runs waiting events; a failing handler is reported and the server goes on."""

    def dispatch() -> bool:
        try:
            return bool(plane.dispatch(server.event))
        except Exception as err:
            server.log.error(f"An event could not be handled: {err!r}")
            loop.call_exception_handler({"message": "event handler failed", "exception": err})
            return True

    return dispatch


def _write_pid(path: str, log: Log) -> None:
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(str(os.getpid()))
    except OSError as err:
        log.error(f"Could not write pidfile: {err}")
