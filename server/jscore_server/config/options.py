"""The typed options of a server, and their defaults. Pure.

Durations are seconds (float), sizes bytes (int). A port of -1 asks the system for a free one. Names are the ones of the
configuration file. `schema` fills these from a file, `cli` from flags, `validate` checks them together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import msgspec

from .compression import Compression
from .lexer import Position
from .subject_mapping import Mapping
from .transport import Tls, Websocket
from .users import SYSTEM_ACCOUNT, Account, ClientAuthorization, Permissions

__all__ = ["Authorization", "Cluster", "JetStream", "JetStreamLimits", "MonitoringAuthorization", "Options", "Url"]

CLIENT_PORT = 4222
CLUSTER_PORT = 6222
"""Used for a route URL that names no port; a cluster's own port has no default."""


@dataclass(frozen=True, slots=True)
class Url:
    """A server's address as `scheme://user:password@host:port`; user and password are '' when absent."""

    host: str
    port: int
    user: str = ""
    password: str = field(default="", repr=False)
    scheme: str = "nats-route"

    def __str__(self) -> str:
        """Without the password: this goes to the log."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{self.user + '@' if self.user else ''}{host}:{self.port}"


@dataclass(slots=True)
class Authorization:
    """What a connecting route must present."""

    user: str = ""
    password: str = field(default="", repr=False)
    timeout: float = 2.0

    @property
    def login(self) -> tuple[str, str] | None:
        """User and password; None when nothing is asked for."""
        return (self.user, self.password) if self.user else None


@dataclass(slots=True)
class MonitoringAuthorization:
    """What who reads the monitoring port must show: user and password, or the token. `healthz` open: not for that."""

    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    healthz: str = "closed"

    @property
    def required(self) -> bool:
        return bool(self.user or self.token)


class JetStreamLimits(msgspec.Struct):
    """Bounds of the `limits` block; 0 = the server's own default."""

    max_ack_pending: int = 0
    max_ha_assets: int = 0
    max_request_batch: int = 0
    duplicate_window: float = 0.0
    batch_max_inflight_per_stream: int = 0
    batch_max_inflight_total: int = 0
    batch_max_msgs: int = 0
    batch_timeout: float = 0.0


class JetStream(msgspec.Struct):
    """The `jetstream` block. `max_memory`, `max_store`: None = 75 % of what the machine has, chosen at the start."""

    enabled: bool = False
    store_dir: str = ""
    """'' = a temporary directory; files are in `<store_dir>/jetstream`."""
    max_memory: int | None = None
    max_store: int | None = None
    domain: str = ""
    sync_interval: float | Literal["always"] = "always"
    """`always`: a message is synced before it is acknowledged. Seconds: synced at most that much later."""
    strict: bool = True
    unique_tag: str = ""
    extension_hint: str = ""
    limits: JetStreamLimits = msgspec.field(default_factory=JetStreamLimits)
    max_outstanding_catchup: int = 0
    max_buffered_msgs: int = 0
    max_buffered_size: int = 0
    request_queue_limit: int = 10_000
    info_queue_limit: int = 0
    """0 = request_queue_limit."""


class Discovery(msgspec.Struct):
    """`cluster { discovery { ... } }`: servers find each other by datagrams. Ours alone; on when `key` is not empty."""

    key: str = ""
    servers: int = 0
    """Of how many the cluster consists, as a list of routes would say."""
    host: str = "239.255.98.67"
    """An IPv4 multicast group, or a network's broadcast address."""
    port: int = 6223
    interface: str = "0.0.0.0"
    """The address of the interface on which the group is joined; 0.0.0.0: the system's choice."""


class Cluster(msgspec.Struct):
    """The `cluster` block. Clustering is on when `port` is not 0."""

    name: str = ""
    host: str = "0.0.0.0"
    port: int = 0
    routes: list[Url] = msgspec.field(default_factory=list)
    advertise: str = ""
    no_advertise: bool = False
    connect_retries: int = 0
    connect_backoff: bool = False
    pool_size: int = 3
    accounts: list[str] = msgspec.field(default_factory=list)
    """With a route of their own; the system account always has one."""
    authorization: Authorization = msgspec.field(default_factory=Authorization)
    permissions: Permissions | None = None
    """`publish`: what is imported over routes, `subscribe`: what is exported."""
    tls: Tls | None = None
    compression: Compression = msgspec.field(default_factory=Compression)
    ping_interval: float | None = None
    """None = the top-level one, at most 30 s."""
    ping_max: int | None = None
    write_deadline: float | None = None
    write_timeout: str = "retry"
    udp_hints: bool = False
    """Datagrams beside the links, on the same port, by which a host that went silent is noticed sooner. Ours alone."""
    discovery: Discovery = msgspec.field(default_factory=Discovery)


@dataclass(slots=True)
class Options:
    """Everything a server is told before it starts."""

    config_file: str = ""
    config_digest: str = ""
    server_name: str = ""
    """'' = the server's id."""
    server_tags: list[str] = field(default_factory=list)
    server_metadata: dict[str, str] = field(default_factory=dict)
    host: str = "0.0.0.0"
    port: int = CLIENT_PORT
    client_advertise: str = ""
    debug: bool = False
    trace: bool = False
    trace_verbose: bool = False
    trace_headers: bool = False
    max_traced_msg_len: int = 0
    logtime: bool = True
    logtime_utc: bool = False
    log_file: str = ""
    log_size_limit: int = 0
    log_max_num: int = 0
    syslog: bool = False
    remote_syslog: str = ""
    """`udp://host:port` and the like; the file, where there is one, comes first."""
    pid_file: str = ""
    ports_file_dir: str = ""
    max_connections: int = 65_536
    max_subscriptions: int = 0
    max_control_line: int = 4096
    max_payload: int = 1 << 20
    max_pending: int = 64 << 20
    max_closed_clients: int = 10_000
    ping_interval: float = 120.0
    ping_max: int = 2
    write_deadline: float = 10.0
    write_timeout: str = "default"
    no_fast_producer_stall: bool = False
    """A client that is behind gets no more for a while, instead of its publishers being paused."""
    lame_duck_duration: float = 120.0
    lame_duck_grace_period: float = 10.0
    connect_error_reports: int = 3600
    reconnect_error_reports: int = 1
    tls: Tls | None = None
    allow_non_tls: bool = False
    websocket: Websocket = field(default_factory=Websocket)
    proxy_protocol: bool = False
    https_port: int = 0
    """0 = no monitoring over TLS."""
    http_host: str = ""
    """'' = the client host."""
    http_port: int = 0
    """0 = no monitoring."""
    http_base_path: str = "/"
    http_authorization: MonitoringAuthorization = field(default_factory=MonitoringAuthorization)
    jetstream: JetStream = field(default_factory=JetStream)
    cluster: Cluster = field(default_factory=Cluster)
    authorization: ClientAuthorization = field(default_factory=ClientAuthorization)
    accounts: dict[str, Account] = field(default_factory=dict)
    """The named ones; `$G`, and `$SYS` unless switched off, are there without a word."""
    mappings: list[Mapping] = field(default_factory=list)
    """Of the global account."""
    no_auth_user: str = ""
    system_account: str = SYSTEM_ACCOUNT
    no_system_account: bool = False
    feature_flags: dict[str, bool] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list, repr=False, compare=False)
    """What in the file forbids a start, one line each; `-t` only shows it."""
    places: dict[str, Position] = field(default_factory=dict, repr=False, compare=False)
    """Where the file says it: dotted canonical name (`cluster.listen`) -> place. A flag removes the place."""
