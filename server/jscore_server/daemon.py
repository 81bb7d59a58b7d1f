"""The one place that builds the real clock, disk, loop and network, and runs a server until a signal ends it."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
from collections.abc import Callable, Sequence

import jscore
from jscore_server.authentication import plaintext
from jscore_server.config.options import Options
from jscore_server.dataplane import Plane, PlaneLoop, PlaneSelector
from jscore_server.logs import Log
from jscore_server.reload import Reload, plane_bounds, syslog, write_pid
from jscore_server.server import Server
from jscore_server.version import NATS_VERSION, PROTOCOL, VERSION, Versions

# Tests of rolling upgrades set it: a server that does all as this version does and says it knows the next one, too.
RAISED = "JSCORE_TEST_PROTOCOL"
# Between two turns of the C loop, so that nobody's traffic waits for a crowd that comes or goes, or asks for much.
CLIENT_EVENTS_A_TURN = 16
EVENTS_NS = 1_000_000
SIGNAL_NAMES = {
    signal.SIGINT: "interrupt",
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "hangup",
    signal.SIGUSR1: "user defined signal 1",
    signal.SIGUSR2: "user defined signal 2",
}


def _protocol() -> Versions:
    """What this server understands. Raises: ValueError."""
    raised = os.environ.get(RAISED)
    if not raised:
        return PROTOCOL
    newest = int(raised)
    if not PROTOCOL.newest <= newest < 256:
        raise ValueError(f"{RAISED}: expected {PROTOCOL.newest} to 255, got {newest}")
    return Versions(PROTOCOL.oldest, newest)


def run(options: Options, warnings: Sequence[str] = (), reread: Callable[[], Options] | None = None) -> int:
    """Serves until SIGINT or SIGTERM; the exit code. `warnings` of the configuration go to the log first.

    `reread` gives the options anew when a reload is asked for, or raises ConfigError; None: they came from no file.
    """
    log = Log(
        options.log_file,
        debug=options.debug,
        trace=options.trace,
        logtime=options.logtime,
        logtime_utc=options.logtime_utc,
        size_limit=options.log_size_limit,
        max_num=options.log_max_num,
        syslog=syslog(options),
    )
    for warning in warnings:
        log.warn(warning)
    plane = Plane(max_pending=options.max_pending, max_subs=max(0, options.max_subscriptions), **plane_bounds(options))
    raise_file_limit(log)
    selector = PlaneSelector(plane)
    loop = PlaneLoop(selector)
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(_serve(options, log, plane, selector, reread))
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


async def _serve(
    options: Options, log: Log, plane: Plane, selector: PlaneSelector, reread: Callable[[], Options] | None
) -> int:
    loop = asyncio.get_running_loop()
    stopped = loop.create_future()

    def trapped(number: signal.Signals) -> None:
        log.info(f'Trapped "{SIGNAL_NAMES[number]}" signal')
        match number:
            case signal.SIGHUP:
                server.ask_reload()
            case signal.SIGUSR1:
                reopen()
            case signal.SIGUSR2:
                server.lame_duck(end)
            case signal.SIGTERM if server.facts.lame_duck:
                pass  # it ends by itself; an interrupt still ends it now
            case _:
                end()

    def reopen() -> None:
        try:
            log.reopen()
        except OSError as err:
            log.error(f"Unable to reopen the log file, the old one stays: {err}")

    def end() -> None:
        if not stopped.done():
            stopped.set_result(0)

    try:
        server = Server(options, log, plane, os.urandom, protocol=_protocol())
    except ValueError as err:
        log.fatal(str(err))
        return 1
    server.ask_reload = Reload(server, plane, reread)
    for number in SIGNAL_NAMES:
        loop.add_signal_handler(number, trapped, number)
    log.info(f"Starting jscore-server {VERSION}")
    if server.protocol != PROTOCOL:
        log.warn(f"{RAISED} is set: this server passes for a later version")
    log.info(f"  Version:  {NATS_VERSION}")
    log.info(f"  Name:     {server.facts.server_name}")
    log.info(f"  ID:       {server.facts.server_id}")
    if reread is not None:
        log.info(f"Using configuration file: {options.config_file} ({options.config_digest})")
    if plaintext(options):
        log.warn("Plaintext passwords detected, use nkeys or bcrypt")
    runtime = None
    try:
        if options.jetstream.enabled:
            from jscore_server.entitlement import entitled
            from jscore_server.jetstream.runtime import Runtime

            runtime = Runtime(server, loop, entitled(options))
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
        write_pid(options.pid_file, log)
    server.ports_file.write(options.ports_file_dir)
    gc.freeze()  # with the little garbage of the start: to find it takes as long as fifty connections
    gc.enable()
    code = await stopped
    log.info("Initiating Shutdown...")
    server.stop()
    selector.dispatch = lambda: False
    log.info("Server Exiting..")
    return int(code)


def _dispatcher(plane: Plane, server: Server, loop: asyncio.AbstractEventLoop):  # type: ignore[no-untyped-def]
    """Runs waiting events; a failing handler is reported and the server goes on."""

    run, event = plane.dispatch, server.event

    def dispatch() -> bool:
        try:
            return run(event, CLIENT_EVENTS_A_TURN, EVENTS_NS)
        except Exception as err:
            server.log.error(f"An event could not be handled: {err!r}")
            loop.call_exception_handler({"message": "event handler failed", "exception": err})
            return True

    return dispatch
