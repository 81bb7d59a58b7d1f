from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, final

from jscore import RecordLog, Store

class Msg(NamedTuple):
    account: str
    subject: str
    reply: str
    headers: bytes
    data: bytes
    origin: int
    origin_kind: int

class StoredMsg(NamedTuple):
    seq: int
    subject: str
    headers: bytes
    data: bytes
    ts: int

class StreamState(NamedTuple):
    messages: int
    bytes: int
    first_seq: int
    last_seq: int
    num_subjects: int
    num_deleted: int
    first_ts: int
    last_ts: int

class ConsumerState(NamedTuple):
    delivered_consumer: int
    delivered_stream: int
    ack_floor_consumer: int
    ack_floor_stream: int
    num_ack_pending: int
    num_redelivered: int
    num_waiting: int
    num_pending: int
    last_delivered_ns: int
    last_ack_ns: int
    push_bound: bool

class ConnInfo(NamedTuple):
    id: int
    in_msgs: int
    out_msgs: int
    in_bytes: int
    out_bytes: int
    pending: int
    subs: int
    rtt_ns: int
    last_activity_ns: int
    start_ns: int
    kind: int
    greeted: bool
    stalls: int
    account: str
    level: int

class TlsInfo(NamedTuple):
    version: str
    cipher: str
    first: bool

class PlaneStats(NamedTuple):
    in_msgs: int
    out_msgs: int
    in_bytes: int
    out_bytes: int
    slow_consumers: int
    subscriptions: int
    clients: int
    routes: int
    route_in_msgs: int
    route_out_msgs: int
    route_in_bytes: int
    route_out_bytes: int
    remote_subscriptions: int
    slow_clients: int
    slow_routes: int
    stale_clients: int
    stale_routes: int
    stalls: int

class Tally(NamedTuple):
    in_msgs: int
    out_msgs: int
    in_bytes: int
    out_bytes: int

class AccountInfo(NamedTuple):
    name: str
    conns: int
    subs: int
    own_subs: int
    clients: Tally
    routes: Tally
    slow_consumers: int
    inserts: int
    removes: int
    matches: int
    cache_hits: int
    cached: int
    fanout_max: int
    fanout_sum: int

class SubInfo(NamedTuple):
    account: str
    subject: str
    queue: str
    sid: str
    conn: int
    delivered: int
    max: int

def accept(listener: int) -> tuple[int, str, int] | None: ...

@final
class Tls:
    def __init__(
        self,
        *,
        server: bool,
        verify: bool,
        tls13_only: bool = ...,
        certificates: Sequence[tuple[str, str]] = ...,
        ca_file: str | None = ...,
        ciphers12: str | None = ...,
        ciphers13: str | None = ...,
        groups: str | None = ...,
        pins: Sequence[bytes] = ...,
    ) -> None: ...

@final
class Subscription:
    def close(self) -> None: ...

@final
class Permissions:
    def __init__(
        self,
        *,
        publish_allow: Iterable[str] = (),
        publish_deny: Iterable[str] = (),
        subscribe_allow: Iterable[tuple[str, str]] = (),
        subscribe_deny: Iterable[tuple[str, str]] = (),
        no_publish: bool = False,
        max_responses: int = 0,
        expires_ns: int = 0,
    ) -> None: ...

@final
class Plane:
    def __init__(
        self,
        *,
        max_payload: int = ...,
        max_control_line: int = ...,
        max_pending: int = ...,
        ping_interval_ns: int = ...,
        ping_max: int = ...,
        max_subs: int = ...,
        write_deadline_ns: int = ...,
        route_ping_interval_ns: int = ...,
        route_ping_max: int = ...,
        auth_required: bool = ...,
        trace: bool = ...,
        no_stall: bool = ...,
    ) -> None: ...
    def tune(
        self,
        *,
        max_payload: int,
        max_control_line: int,
        ping_interval_ns: int,
        ping_max: int,
        write_deadline_ns: int,
        route_ping_interval_ns: int,
        route_ping_max: int,
        trace: bool,
        no_stall: bool,
    ) -> None: ...
    def attach_store(self, store: Store) -> None: ...
    def own_log(self, log: RecordLog, log_id: int) -> None: ...
    def disown_log(self, log: RecordLog) -> None: ...
    def close(self) -> None: ...
    def watch(self, fd: int, mask: int) -> None: ...
    def poll(self, timeout_ns: int) -> Sequence[tuple[int, int]]: ...
    def flush(self) -> None: ...
    def unix_ns(self) -> int: ...
    def tell_time(self, mono_ns: int, unix_ns: int) -> None: ...
    def dispatch(
        self, handler: Callable[[int, int, int, int, int, Any], None], clients: int = 512, within_ns: int = 0
    ) -> bool: ...
    def adopt(self, fd: int, kind: int) -> int: ...
    def accept(
        self,
        conn: int,
        account: str,
        *,
        verbose: bool,
        pedantic: bool,
        echo: bool,
        headers: bool,
        no_responders: bool,
        protocol: int,
        after_pong: bytes = b"",
        permissions: Permissions | None = None,
        max_subs: int | None = None,
        max_payload: int | None = None,
    ) -> bool: ...
    def default_client(
        self,
        account: str | None,
        *,
        permissions: Permissions | None = None,
        max_subs: int | None = None,
        max_payload: int | None = None,
    ) -> None: ...
    def permit(self, conn: int, permissions: Permissions | None) -> bool: ...
    def client_default(
        self,
        conn: int,
        account: str | None,
        *,
        permissions: Permissions | None = None,
        max_subs: int | None = None,
        max_payload: int | None = None,
    ) -> bool: ...
    def limit(self, conn: int, max_subs: int | None, max_payload: int | None) -> bool: ...
    def ping_every(self, conn: int, interval_ns: int) -> bool: ...
    def account_limit(self, account: str, max_clients: int | None) -> None: ...
    def account_clients(self, account: str) -> int: ...
    def account_system(self, account: str, on: bool) -> None: ...
    def account_map(self, account: str, entries: Iterable[tuple[str, str, int]]) -> None: ...
    def account_trace(self, account: str, dest: str, percent: int) -> None: ...
    def go_on(self, conn: int) -> bool: ...
    def route_ready(
        self,
        conn: int,
        *,
        account: str = "",
        apart: Iterable[str] = (),
        pool_size: int = 0,
        pool_index: int = 0,
        traces: bool = False,
    ) -> bool: ...
    def route_permissions(self, imports: Permissions | None, exports: Permissions | None) -> None: ...
    def route_tell(self, conn: int) -> bool: ...
    def route_share(self, conn: int, account: str) -> bool: ...
    def become_link(self, conn: int, version: int) -> bool: ...
    def write(self, conn: int, data: bytes) -> bool: ...
    def close_conn(self, conn: int, reason: str, err: str | None = None) -> bool: ...
    def layer(
        self,
        conn: int,
        tls: Tls | None,
        *,
        timeout_ns: int = 0,
        first: bool = False,
        fallback_ns: int = 0,
        dials: bool = False,
        host: str | None = None,
        optional: bool = False,
        proxy: bool = False,
        websocket: bool = False,
        http_ns: int = 0,
    ) -> bool: ...
    def ws_open(self, conn: int, response: bytes, *, unmasked: bool, deflate: bool, browser: bool) -> bool: ...
    def compress(self, conn: int, level: int, thresholds_ns: Sequence[int] = ()) -> bool: ...
    def tls_info(self, conn: int) -> TlsInfo | None: ...
    def peer_certificates(self, conn: int) -> list[bytes]: ...
    gone_subs: bytes
    def conn_info(self, conn: int) -> ConnInfo | None: ...
    def stats(self) -> PlaneStats: ...
    def account_infos(self) -> list[AccountInfo]: ...
    def subscriptions(
        self, *, conn: int = 0, account: str | None = None, subject: str | None = None, skip: int = 0, limit: int = 0
    ) -> tuple[int, list[SubInfo]]: ...
    def subscribe(
        self,
        account: str,
        subject: str,
        callback: Callable[[Msg], None],
        *,
        queue: str = "",
        local: bool = False,
        lenient: bool = False,
    ) -> Subscription: ...
    def publish(
        self, account: str, subject: str, data: bytes = b"", *, reply: str = "", headers: bytes = b""
    ) -> int: ...
    def interest(self, account: str, subject: str) -> int: ...
    def link_send(self, conn: int, kind: int, body: bytes) -> bool: ...
    def link_push(self) -> None: ...
    def link_send_records(
        self, conn: int, kind: int, head: bytes, log: RecordLog, lo: int, hi: int, cap: int
    ) -> int: ...
    def quota(
        self, account: str, memory: int, storage: int, *, elsewhere_memory: int = 0, elsewhere_storage: int = 0
    ) -> None: ...
    def used(self, account: str) -> tuple[int, int]: ...
    def held(self) -> tuple[int, int]: ...
    def written_streams(self) -> list[int]: ...
    def add_stream(self, log: RecordLog, stream_id: int, account: str, name: str) -> Stream: ...

@final
class Stream:
    log: RecordLog
    id: int
    name: str
    applied: int
    committed: int
    def close(self) -> None: ...
    def configure(self, **limits: Any) -> None: ...
    def set_subjects(self, subjects: Iterable[str]) -> None: ...
    def lead(self, term: int) -> None: ...
    def follow(self) -> None: ...
    def shutdown(self) -> None: ...
    def set_solo(self, on: bool) -> None: ...
    def propose(self, kind: int, data: bytes) -> int: ...
    def commit(self, index: int) -> bool: ...
    def skip(self) -> None: ...
    def state(self) -> StreamState: ...
    def amount(self) -> tuple[int, int]: ...
    def get(self, seq: int) -> StoredMsg | None: ...
    def last(self, pattern: str) -> StoredMsg | None: ...
    def next(self, pattern: str, from_seq: int) -> StoredMsg | None: ...
    def seq_at(self, unix_ns: int) -> int | None: ...
    def subject_counts(self, pattern: str = ">") -> dict[str, int]: ...
    def deleted(self) -> list[int]: ...
    def purge(self, filter: str, seq: int, keep: int, reply: str) -> None: ...
    def delete(self, seq: int, reply: str) -> None: ...
    keeps: int
    def move(self, below: int, most: int) -> bool: ...
    def snapshot_begin(self, host: bytes) -> None: ...
    def snapshot_step(self) -> bool: ...
    def snapshot_file(self) -> tuple[bytes, int, int]: ...
    def snapshot_end(self) -> None: ...
    def restore(self, data: bytes, lossy: bool) -> int: ...
    def restore_consumers(self) -> None: ...
    def add_consumer(self, consumer_id: int, name: str, created_ns: int, **options: Any) -> Consumer: ...

@final
class Consumer:
    id: int
    name: str
    def state(self) -> ConsumerState: ...
    def close(self) -> None: ...

def snapshot_host(data: bytes) -> bytes: ...
