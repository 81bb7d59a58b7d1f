"""A reload: the file is read anew, what may change is applied, anything else refuses the whole.

Nothing changes before everything that can fail has been tried: reading, checking, opening the log file, loading
certificates. Connections stay unless their user, their route or the bound they exceed is gone.
"""

from __future__ import annotations

import copy
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

from jscore_server.cluster.secure import ClusterTls
from jscore_server.config.lexer import ConfigError
from jscore_server.config.options import Options
from jscore_server.config.validate import named_users
from jscore_server.dataplane import Plane
from jscore_server.logs import Log
from jscore_server.ports import program
from jscore_server.protocol.duration import go_duration
from jscore_server.server import Server
from jscore_server.syslog import Syslog
from jscore_server.transport.listener import TlsListener

__all__ = ["Reload", "plane_bounds", "syslog", "write_pid"]

NANOSECOND = 1_000_000_000
WITHOUT_FILE = "can only reload config when a file is provided using -c or --config"

FIXED = {
    "host": "Host",
    "port": "Port",
    "server_name": "ServerName",
    "log_size_limit": "LogSizeLimit",
    "log_max_num": "LogMaxFiles",
    "max_subscriptions": "MaxSubs",
    "max_pending": "MaxPending",
    "max_closed_clients": "MaxClosedClients",
    "write_timeout": "WriteTimeout",
    "lame_duck_duration": "LameDuckDuration",
    "lame_duck_grace_period": "LameDuckGracePeriod",
    "allow_non_tls": "AllowNonTLS",
    "proxy_protocol": "ProxyProtocol",
    "http_host": "HTTPHost",
    "http_port": "HTTPPort",
    "https_port": "HTTPSPort",
    "http_base_path": "HTTPBasePath",
    "system_account": "SystemAccount",
    "no_system_account": "NoSystemAccount",
    "feature_flags": "FeatureFlags",
    "websocket": "Websocket",
    "jetstream": "JetStream",
}
"""Options that only a start applies, and nats-server's names for them, which its refusal shows."""

SHOWN = (
    *("trace", "trace_verbose", "trace_headers", "debug", "logtime", "logtime_utc", "log_file", "max_connections"),
    *("ping_interval", "ping_max", "max_control_line", "max_payload", "pid_file", "ports_file_dir", "write_deadline"),
    *("max_traced_msg_len", "connect_error_reports", "reconnect_error_reports"),
    *("syslog", "remote_syslog", "no_fast_producer_stall"),
)
"""Options whose change is logged with the new value, in the order of the lines."""

DURATIONS = frozenset({"ping_interval", "write_deadline", "lame_duck_duration", "lame_duck_grace_period"})


def plane_bounds(options: Options) -> dict[str, Any]:
    """What the data plane is told of the options, and may be told anew."""
    return {
        "max_payload": options.max_payload,
        "max_control_line": options.max_control_line,
        "ping_interval_ns": int(options.ping_interval * NANOSECOND),
        "ping_max": options.ping_max,
        "write_deadline_ns": int(options.write_deadline * NANOSECOND),
        "route_ping_interval_ns": int((options.cluster.ping_interval or 0) * NANOSECOND),
        "route_ping_max": options.cluster.ping_max or 0,
        "no_stall": options.no_fast_producer_stall,
        "trace": options.trace,
    }


class Reload:
    """Applies what `reread` returns to a running server. Made before the server starts: it keeps what was asked for."""

    def __init__(self, server: Server, plane: Plane, reread: Callable[[], Options] | None) -> None:
        """`reread` None: there is no file. It raises ConfigError with what is wrong."""
        self._server = server
        self._plane = plane
        self._reread = reread
        self._asked = copy.deepcopy(server.options)  # a started server fills in ports and directories

    def __call__(self) -> str:
        """'' when it is done, otherwise why nothing changed. Both are in the log, too."""
        server = self._server
        try:
            if self._reread is None:
                raise ConfigError(WITHOUT_FILE)
            new = self._reread()
            self._refuse(new)
            self._apply(new)
        except (ConfigError, OSError, ValueError) as err:
            server.log.error(f"Failed to reload server configuration: {err}")
            return str(err)
        server.loaded_ns = time.time_ns()
        server.log.info(f"Reloaded server configuration ({new.config_digest})")
        return ""

    def _refuse(self, new: Options) -> None:
        """Raises: ConfigError naming the first change that cannot be made."""
        old = self._asked
        for name, field in FIXED.items():
            before, after = getattr(old, name), getattr(new, name)
            if name == "websocket":
                # Certificates may change: whether there is TLS may not.
                before, after = _without_files(before), _without_files(after)
            if before != after:
                raise ConfigError(_unsupported(field, self._shown(name, before), self._shown(name, after)))
        removed = not new.no_auth_user and old.no_auth_user not in named_users(new)
        if old.no_auth_user != new.no_auth_user and not removed:
            raise ConfigError(_unsupported("NoAuthUser", old.no_auth_user, new.no_auth_user))
        for name in ("host", "port", "udp_hints"):
            before, after = (getattr(o.cluster, name) if o.cluster.port else "" for o in (old, new))
            if before != after:
                raise ConfigError(_unsupported(f"cluster {name}", str(before), str(after)))
        if new.cluster.port and old.cluster.discovery != new.cluster.discovery:  # its key is not to be told
            raise ConfigError("config reload not supported for cluster discovery")
        if (old.cluster.tls is None) != (new.cluster.tls is None):
            raise ConfigError(_unsupported("cluster tls", *(_enabled(o.cluster.tls) for o in (old, new))))

    def _shown(self, name: str, value: Any) -> str:
        if name == "port" and value == -1 and self._asked.port == -1:
            return str(self._server.client_port)
        return _text(name, value)

    def _apply(self, new: Options) -> None:
        server, old = self._server, self._asked
        tls = TlsListener(new.tls, optional=new.allow_non_tls) if new.tls is not None else None
        cluster_tls = ClusterTls.of(new.cluster)
        moved = (old.log_file, old.syslog, old.remote_syslog) != (new.log_file, new.syslog, new.remote_syslog)
        elsewhere = syslog(new) if moved else None
        server.log.configure(
            new.log_file, debug=new.debug, trace=new.trace, logtime=new.logtime, logtime_utc=new.logtime_utc
        )
        if moved:
            server.log.send_to(elsewhere)
        # From here on nothing fails: the websocket's files, too, were loaded once when the options were checked.
        if server.web is not None and server.web.tls is not None and new.websocket.tls is not None:
            server.web.tls.replace(new.websocket.tls)
        for field in fields(Options):
            if field.name != "jetstream":
                setattr(server.options, field.name, getattr(new, field.name))
        self._asked = copy.deepcopy(new)
        self._plane.tune(**plane_bounds(new))
        server.facts.max_payload = new.max_payload
        self._listener_tls(tls)
        server.admission.replace(new)
        server.bind_mappings()
        if server.jetstream is not None:
            from jscore_server.entitlement import entitled

            server.jetstream.engine.set_accounts(entitled(new))
        self._shed(new.max_connections)
        if new.pid_file and new.pid_file != old.pid_file:
            write_pid(new.pid_file, server.log)
        if new.ports_file_dir != old.ports_file_dir:
            server.ports_file.write(new.ports_file_dir)
        for line in self._lines(old, new):
            server.log.info(line)
        if old.client_advertise != new.client_advertise:
            server.advertise()
        if old.cluster != new.cluster:
            server.cluster_changed(cluster_tls)

    def _listener_tls(self, tls: TlsListener | None) -> None:
        server = self._server
        if tls is not None and server.tls is not None:
            tls.rate = server.tls.rate if tls.rate.limit == server.tls.rate.limit else tls.rate
        server.tls = tls
        server.facts.tls = tls.facts() if tls is not None else {}

    def _shed(self, most: int) -> None:
        """Closes some clients when there are more than may be."""
        server = self._server
        excess = len(server.clients) - max(0, most)
        if excess > 0:
            for conn in random.sample(list(server.clients), excess):
                self._plane.close_conn(conn, "Maximum Connections Exceeded", "maximum connections exceeded")

    def _lines(self, old: Options, new: Options) -> Iterator[str]:
        """What the log says of the changes, in nats-server's words."""
        if old.client_advertise != new.client_advertise:
            yield f"Reload: client_advertise = {new.client_advertise}"
        if old.tls != new.tls:
            yield f"Reloaded: tls = {_enabled(new.tls)}"
        for name in SHOWN:
            if name == "ping_interval":
                # Said of every reload: credentials are looked at anew even if the file says the same.
                yield "Reloaded: authorization users"
                yield "Reloaded: accounts"
            before, after = getattr(old, name), getattr(new, name)
            if before != after:
                yield f"Reloaded: {name} = {_text(name, after)}"
        if old.authorization.timeout != new.authorization.timeout:
            yield f"Reloaded: authorization timeout = {new.authorization.timeout:g}"
        if old.server_tags != new.server_tags:
            yield "Reloaded: tags"
        if old.server_metadata != new.server_metadata:
            yield "Reloaded: metadata"
        if old.cluster != new.cluster:
            yield "Reloaded: cluster"


def _unsupported(field: str, before: str, after: str) -> str:
    return f"config reload not supported for {field}: old={before}, new={after}"


def _text(name: str, value: Any) -> str:
    if name in DURATIONS:
        return go_duration(round(value * NANOSECOND))
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else "…"


def _enabled(block: object) -> str:
    return "enabled" if block is not None else "disabled"


def _without_files(websocket: Any) -> Any:
    plain = copy.copy(websocket)
    plain.tls = None if websocket.tls is None else True
    return plain


def syslog(options: Options) -> Syslog | None:
    """Where the log goes when it goes to no file. Raises: OSError, ValueError."""
    if options.log_file or not (options.syslog or options.remote_syslog):
        return None
    return Syslog(options.remote_syslog, program())


def write_pid(path: str, log: Log) -> None:
    """The process id into a file; one that cannot be written is no reason to stop."""
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(str(os.getpid()))
    except OSError as err:
        log.error(f"Could not write pidfile: {err}")
