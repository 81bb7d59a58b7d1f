"""The command: flags, the configuration file, and what to do with them.

Flags are spelled as nats-server's: one dash or two, `-flag value` or `-flag=value`, booleans `-flag=false`.
"""

from __future__ import annotations

import gc
import os
import re
import signal
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from .config.kinds import NO_PROFILE, Warning, parse_listen
from .config.lexer import ConfigError
from .config.load import load
from .config.options import Options
from .config.tls import CURVES, INSECURE_SUITES, SUITES, TLS13_SUITES
from .config.transport import Tls
from .config.urls import parse_route
from .config.validate import faults, warnings
from .version import NATS_VERSION, VERSION

__all__ = ["main"]

_USAGE = """
Usage: {prog} [options]
       {prog} cluster status [options]   What is well in a running cluster, and which server may be stopped next

Server:
    -a, --addr, --net <host>         Host to listen on (0.0.0.0)
    -p, --port <port>                Port for clients (4222; -1 takes a free one)
    -n, --name, --server_name <name> Name of this server (its id)
    -c, --config <file>              Configuration file; flags win over what it says
    -t                               Check the configuration file and exit
    -P, --pid <file>                 Write the process id to a file
        --ports_file_dir <dir>       Write the ports in use to <dir>/<program>_<pid>.ports
    -m, --http_port <port>           Port for HTTP monitoring
    -ms, --https_port <port>         Port for HTTPS monitoring, with the certificate of the tls block
        --client_advertise <address> Address that other servers tell their clients for this one
    -sl, --signal <signal>[=<pid>]   Send a running server one of stop, quit, term, reopen, ldm, reload;
                                     <pid> is a process id or the path of a pid file

Logging:
    -l, --log <file>                 Write the log to a file, not to standard error
    -T, --logtime                    Begin each line with date and time (true)
        --logtime_utc                Date and time in UTC
        --log_size_limit <bytes>     Begin a new log file at this size
        --max_traced_msg_len <bytes> Show at most this much of a traced message
    -D, --debug                      Log what helps in finding faults
    -V, --trace                      Log the protocol
    -VV                              As -V, with the system account
    -DV, -DVV                        -D with -V or -VV

JetStream:
    -js, --jetstream                 Turn JetStream on
    -sd, --store_dir <dir>           Where JetStream keeps its files

Cluster:
        --cluster, --cluster_listen <url>  Where this server awaits other servers
        --cluster_name <name>        Name of the cluster
        --routes <url>[,<url>...]    Servers to connect to
        --cluster_advertise <address> Address that other servers get for this one
        --no_advertise               Do not tell clients of other servers
        --connect_retries <number>   How often a route that was only heard of is tried again

Authorization:
        --user <user>, --pass <password>  What clients must present (other users may read a command line)
        --auth <token>               Token that clients must present

TLS:
        --tls                        Clients must use TLS (false: whatever the file says)
        --tlscert <file>, --tlskey <file>  Certificate and private key of this server
        --tlsverify                  Clients must show a certificate
        --tlscacert <file>           Authorities that clients' certificates come from

Not supported yet (no effect):
    -s, --syslog    -r, --remote_syslog <address>    --profile <port>

Common:
    -h, --help                       This text
        --help_tls                   What there is to say on TLS
    -v, --version                    The version
"""


_TLS_HELP = """
TLS is set up in the tls block of a configuration file, for example:

    tls {{
        cert_file: "./certs/server-cert.pem"
        key_file:  "./certs/server-key.pem"
        ca_file:   "./certs/ca.pem"
        verify:    true
        min_version: "1.3"
    }}

Cipher suites (cipher_suites; those of TLS 1.3 are always on, the last ones need allow_insecure_cipher_suites):
{suites}
Curves (curve_preferences):
{curves}"""


class _Stop(Exception):
    """Ends the command: text for standard error ('' none), exit code, whether the usage goes to standard output."""

    def __init__(self, text: str, code: int, usage: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.usage = usage


class _Flag(msgspec.Struct):
    name: str
    boolean: bool
    parse: Callable[[str], Any]


def _bool(text: str) -> bool:
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise ValueError


def _int(text: str) -> int:
    value = int(text, 0) if re.fullmatch(r"[+-]?(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+|[0-9]+)", text) else None
    if value is None or abs(value) >= 1 << 63:
        raise ValueError
    return value


def _flags() -> dict[str, _Flag]:
    table: dict[str, _Flag] = {}

    def add(parse: Callable[[str], Any], *groups: str) -> None:
        for group in groups:
            names = group.split()
            for name in names:
                table[name] = _Flag(names[0], parse is _bool, parse)

    add(str, "addr a net", "server_name n name", "client_advertise", "pid P", "ports_file_dir", "config c", "signal sl")
    add(str, "log l", "remote_syslog r", "store_dir sd", "cluster cluster_listen", "cluster_name", "routes")
    add(str, "cluster_advertise", "user", "pass", "auth", "tlscert", "tlskey", "tlscacert")
    add(_int, "port p", "http_port m", "https_port ms", "log_size_limit", "max_traced_msg_len", "connect_retries")
    add(_int, "profile")
    add(_bool, "t", "debug D", "trace V", "VV", "DV", "DVV", "logtime T", "logtime_utc", "syslog s", "jetstream js")
    add(_bool, "no_advertise", "tls", "tlsverify", "help h", "version v", "help_tls")
    return table


class _Parsed(msgspec.Struct):
    values: dict[str, Any] = msgspec.field(default_factory=dict)
    words: list[str] = msgspec.field(default_factory=list)


def _parse(argv: list[str]) -> _Parsed:
    """Flags up to the first word that is none; what follows is `words`."""
    table = _flags()
    parsed = _Parsed()
    args = list(argv)
    while args:
        arg = args[0]
        if len(arg) < 2 or arg[0] != "-":
            break
        args.pop(0)
        if arg == "--":
            break
        name = arg[2:] if arg.startswith("--") else arg[1:]
        if name == "" or name[0] in "-=":
            raise _Stop(f"bad flag syntax: {arg}", 0, usage=True)
        name, equals, value = name.partition("=")
        flag = table.get(name)
        if flag is None:
            raise _Stop(f"flag provided but not defined: -{name}", 0, usage=True)
        if flag.boolean:
            value = value if equals else "true"
        elif not equals:
            if not args:
                raise _Stop(f"flag needs an argument: -{name}", 0, usage=True)
            value = args.pop(0)
        try:
            parsed.values[flag.name] = flag.parse(value)
        except ValueError:
            if flag.boolean:
                text = f'invalid boolean value "{value}" for -{name}: parse error'
            else:
                text = f'invalid value "{value}" for flag -{name}: parse error'
            raise _Stop(text, 0, usage=True) from None
    parsed.words = args
    return parsed


def _program() -> str:
    """The name in messages: a link named nats-server makes this program speak as that one."""
    return "nats-server" if os.path.basename(sys.argv[0]) == "nats-server" else "jscore-server"


def _version(prog: str) -> str:
    if prog == "nats-server":
        return f"{prog}: v{NATS_VERSION}"
    return f"{prog}: v{VERSION} (nats-server v{NATS_VERSION})"


def main(argv: list[str] | None = None) -> int:
    """Runs the command with `argv` (without the program's name; None = sys.argv[1:]); returns the exit code."""
    prog = _program()
    try:
        return _main(prog, sys.argv[1:] if argv is None else argv)
    except _Stop as stop:
        if str(stop):
            print(stop, file=sys.stderr)
        if stop.usage:
            print(_USAGE.format(prog=prog))
        return stop.code
    except ConfigError as err:
        # The first line carries the name; each fault has its own line.
        print(f"{prog}: {err}", file=sys.stderr)
        return 1


def _main(prog: str, argv: list[str]) -> int:
    parsed = _parse(argv)
    flags = parsed.values
    if flags.get("version"):
        print(_version(prog))
        return 0
    if flags.get("help"):
        raise _Stop("", 0, usage=True)
    if flags.get("help_tls"):
        print(_tls_help())
        return 0
    for word in parsed.words[:1]:
        if word.lower() == "version":
            print(_version(prog))
            return 0
        if word.lower() == "help":
            raise _Stop("", 0, usage=True)
        if word == "cluster" and prog != "nats-server":
            from . import status_command

            return status_command.main(parsed.words[1:])
        raise _Stop(f'{prog}: unrecognized command: "{word}"', 1)
    if flags.get("signal"):
        try:
            _send_signal(prog, flags["signal"])
        except ValueError as err:
            raise _Stop(f"{prog}: {err}", 1) from None
        return 0
    config = flags.get("config", "")
    if flags.get("t") and not config:
        raise _Stop(f"{prog}: must specify [-c, --config] option to check configuration file syntax", 1)

    if flags.get("t"):
        options, notes = load(config)
        _check_tls(options)
        return _check(prog, options, notes + warnings(options))
    options, notes = _resolve(config, flags)
    gc.disable()  # what is made until the server is ready stays: looking for garbage in it costs a tenth of the start
    from . import daemon

    reread = (lambda: _resolve(config, flags)[0]) if config else None
    return daemon.run(options, [note.text for note in notes + warnings(options)], reread)


def _resolve(config: str, flags: dict[str, Any]) -> tuple[Options, list[Warning]]:
    """Options to start with, or to go on with after a reload. Raises: ConfigError."""
    options, notes = load(config) if config else (Options(), [])
    if options.refusals:
        raise ConfigError(*options.refusals)
    notes += _apply(options, flags)
    _check_tls(options)
    found = faults(options)
    if found:
        raise ConfigError(*found)
    return options, notes


def _check_tls(options: Options) -> None:
    """Whether the files of the `tls` blocks can be used. Raises: ConfigError."""
    if options.tls is None and options.websocket.tls is None and options.cluster.tls is None:
        return
    from .transport.context import faults as tls_faults

    found = tls_faults(options)
    if found:
        raise ConfigError(*found)


def _tls_help() -> str:
    suites = "".join(f"    {name}\n" for name in (*TLS13_SUITES, *SUITES, *INSECURE_SUITES))
    return _TLS_HELP.format(suites=suites, curves="".join(f"    {name}\n" for name in CURVES))


def _check(prog: str, options: Options, notes: list[Warning]) -> int:
    """What `-t` says of a file that was read without errors."""
    for line in (*(note.text for note in notes), *options.refusals):
        print(f"{prog}: {line}", file=sys.stderr)
    if any(note.strict for note in notes):
        return 1
    print(f"{prog}: configuration file {options.config_file} is valid ({options.config_digest})", file=sys.stderr)
    return 0


_DIRECT = {
    "addr": ("host",),
    "port": ("port",),
    "server_name": ("server_name",),
    "client_advertise": ("client_advertise",),
    "pid": ("pid_file",),
    "ports_file_dir": ("ports_file_dir",),
    "http_port": ("http_port",),
    "https_port": ("https_port",),
    "log": ("log_file",),
    "log_size_limit": ("log_size_limit",),
    "syslog": ("syslog",),
    "remote_syslog": ("remote_syslog",),
    "max_traced_msg_len": ("max_traced_msg_len",),
    "logtime": ("logtime",),
    "logtime_utc": ("logtime_utc",),
    "debug": ("debug",),
    "trace": ("trace",),
    "user": ("authorization", "user"),
    "pass": ("authorization", "password"),
    "auth": ("authorization", "token"),
    "jetstream": ("jetstream", "enabled"),
    "store_dir": ("jetstream", "store_dir"),
    "cluster_name": ("cluster", "name"),
    "cluster_advertise": ("cluster", "advertise"),
    "no_advertise": ("cluster", "no_advertise"),
    "connect_retries": ("cluster", "connect_retries"),
}
"""Flags that set one option each."""


def _apply(options: Options, flags: dict[str, Any]) -> list[Warning]:
    """Puts flags over what the file said."""
    notes: list[Warning] = []
    if flags.get("profile"):
        notes.append(Warning(f"-profile has no effect: {NO_PROFILE}"))
    for name, path in _DIRECT.items():
        if name in flags:
            target: Any = options
            for step in path[:-1]:
                target = getattr(target, step)
            setattr(target, path[-1], flags[name])
            options.places.pop(".".join(path), None)
            if name in ("addr", "port"):
                options.places.pop("listen", None)
    for name, debug, verbose in (("VV", False, True), ("DV", True, False), ("DVV", True, True)):
        if name in flags:
            options.trace = flags[name]
            options.debug = flags[name] if debug else options.debug
            options.trace_verbose = flags[name] if verbose else options.trace_verbose
    for name, low in (("port", -1), ("http_port", -1), ("https_port", -1)):
        if not low <= flags.get(name, 0) <= 65535:
            raise ConfigError(f"expected a port from {low} to 65535 for -{name}, got {flags[name]}")
    if any(name in flags for name in ("tls", "tlscert", "tlskey", "tlsverify", "tlscacert")):
        _apply_tls(options, flags)
    if "cluster" in flags:
        _apply_cluster(options, flags["cluster"])
    if "routes" in flags:
        try:
            options.cluster.routes = [parse_route(url.strip()) for url in flags["routes"].split(",") if url.strip()]
        except ValueError as err:
            raise ConfigError(str(err)) from None
        options.places.pop("cluster.routes", None)
    return notes


def _apply_tls(options: Options, flags: dict[str, Any]) -> None:
    options.places.pop("tls", None)
    options.tls = None
    if flags.get("tls", True) is False:
        return
    for name, what in (("tlscert", "certificate"), ("tlskey", "private key")):
        if not flags.get(name):
            raise ConfigError(f"TLS Server {what} must be present and valid")
    options.tls = Tls(
        certificates=[(flags["tlscert"], flags["tlskey"])],
        ca_file=flags.get("tlscacert", ""),
        verify=flags.get("tlsverify", False),
    )


def _apply_cluster(options: Options, text: str) -> None:
    cluster = options.cluster
    for key in ("cluster.listen", "cluster.host", "cluster.port"):
        options.places.pop(key, None)
    if not text:
        cluster.port = 0
        cluster.routes = []
        return
    address = text.partition("://")[2] or text
    credentials, _, address = address.rpartition("@")
    try:
        host, port = parse_listen(address.rstrip("/"))
    except ValueError as err:
        raise ConfigError(f"-cluster: {err}") from None
    # In a URL port 0 means: any free one.
    cluster.host, cluster.port = host, port or -1
    if credentials:
        url = parse_route(f"nats://{credentials}@{address}")
        if not url.password:
            raise ConfigError("-cluster: expected a password after the user's name")
        cluster.authorization.user, cluster.authorization.password = url.user, url.password


# ---- -sl ----

_SIGNALS = {
    "stop": signal.SIGKILL,
    "quit": signal.SIGINT,
    "term": signal.SIGTERM,
    "reopen": signal.SIGUSR1,
    "ldm": signal.SIGUSR2,
    "reload": signal.SIGHUP,
}


def _send_signal(prog: str, text: str) -> None:
    """Signals the process that `cmd[=pid]` names. Raises: ValueError with what is wrong."""
    command, _, who = text.partition("=")
    if command not in _SIGNALS:
        raise ValueError(f'unknown signal "{command}"')
    for pid in _processes(prog, who):
        try:
            os.kill(pid, _SIGNALS[command])
        except OSError as err:
            raise ValueError(f"signal {command} to process {pid}: {err.strerror}") from None


def _processes(prog: str, who: str) -> list[int]:
    if who.isdecimal() and who.isascii():
        return [_pid(who)]
    if who and not who.endswith("*"):
        try:
            with open(who, encoding="ascii") as file:
                content = file.read(64).strip()
        except (OSError, ValueError):
            raise ValueError(f"invalid pid: {who}") from None
        return [_pid(content)]
    running = _running(prog)
    if who:
        prefix = who[:-1]
        if prefix and not prefix.isdecimal():
            raise ValueError(f"invalid pid: {who}")
        running = [pid for pid in running if str(pid).startswith(prefix)]
    elif len(running) > 1:
        raise ValueError(f"multiple {prog} processes running:\n" + "\n".join(map(str, running)))
    if not running:
        raise ValueError(f"no {prog} processes running")
    return running


def _pid(text: str) -> int:
    # 0, 1 and negative numbers name groups, init, or everybody.
    if not text.isdecimal() or not text.isascii() or not 1 < int(text) < 1 << 31:
        raise ValueError(f"invalid pid: {text}")
    return int(text)


def _running(prog: str) -> list[int]:
    """Processes that run this program: by its name, or as a script of that name that a Python runs."""
    found = []
    for entry in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if not entry.isdecimal() or int(entry) == os.getpid():
            continue
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except OSError:
            continue
        names = [os.path.basename(word.decode("utf-8", "replace")) for word in words[:2]]
        if names and (names[0] == prog or (names[0].startswith("python") and names[1:] == [prog])):
            found.append(int(entry))
    return sorted(found)


if __name__ == "__main__":
    sys.exit(main())
