"""What the JetStream API reads and writes, field for field in the peer's order.

A field of type `int` with `omit_defaults` is left out of the output when it is zero; one declared with `always()` is
written even then. Times are RFC 3339 texts (see `format_time`), durations are nanoseconds. The zero value of each field
is what an absent field means in a request; `stream_config` and `consumer_config` turn zeros into defaults.
Source: ADR-1, nats-server v2.14.5 `stream.go`, `consumer.go`, `jetstream_api.go`; checked against its bytes.
"""

from __future__ import annotations

import datetime
import re
from typing import Annotated, Any, TypeVar

import msgspec

from jscore_server.jetstream.errors import ApiError

TYPE_PREFIX = "io.nats.jetstream.api.v1."
ZERO_TIME = "0001-01-01T00:00:00Z"
# What clients switch features on by (ADR-44). 0 while per-message TTL (1), counters, batches and schedules (2) and fast
# batches (4) are refused: a client that asks for one then hears so before it relies on it.
API_LEVEL = 0
NAMES_PAGE = 1024
LIST_PAGE = 256
SUBJECTS_PAGE = 100_000

T = TypeVar("T")


class Kind:
    """How JSON text becomes this field, where the Python type alone does not say it; name: the type in error texts."""

    def __init__(self, name: str, lo: int = 0, hi: int = 0, values: dict[str, str] | None = None) -> None:
        self.name = name
        self.lo = lo
        self.hi = hi
        self.values = values


I64_MIN, I64_MAX, U64_MAX = -(1 << 63), (1 << 63) - 1, (1 << 64) - 1

Int = Annotated[int, Kind("int", I64_MIN, I64_MAX)]
Int32 = Annotated[int, Kind("int32", -(1 << 31), (1 << 31) - 1)]
Int64 = Annotated[int, Kind("int64", I64_MIN, I64_MAX)]
Uint64 = Annotated[int, Kind("uint64", 0, U64_MAX)]
Duration = Annotated[int, Kind("time.Duration", I64_MIN, I64_MAX)]
Time = Annotated[str, Kind("time.Time")]


def _enum(name: str, **values: str) -> Kind:
    return Kind(name, values=values)


Retention = Annotated[str, _enum("quoted", limits="limits", interest="interest", workqueue="workqueue")]
Discard = Annotated[str, _enum("folded", old="old", new="new")]
Storage = Annotated[str, _enum("quoted", file="file", memory="memory")]
Compression = Annotated[str, _enum("compression", none="none", s2="s2")]
PersistMode = Annotated[str, Kind("quoted", values={"": "", "default": "", "async": "async"})]
DeliverPolicy = Annotated[
    str,
    _enum(
        "quoted",
        all="all",
        undefined="all",
        last="last",
        new="new",
        by_start_sequence="by_start_sequence",
        by_start_time="by_start_time",
        last_per_subject="last_per_subject",
    ),
]
AckPolicy = Annotated[str, _enum("quoted", none="none", all="all", explicit="explicit", flow_control="flow_control")]
ReplayPolicy = Annotated[str, _enum("quoted", instant="instant", original="original")]
PriorityPolicy = Annotated[
    str,
    Kind(
        "priority",
        values={"none": "", "overflow": "overflow", "pinned_client": "pinned_client", "prioritized": "prioritized"},
    ),
]
Action = Annotated[str, Kind("action", values={"": "", "create": "create", "update": "update"})]


def always(value: T) -> T:
    """A default that is written to the output all the same."""
    # A factory keeps `omit_defaults` from recognising the value; only empty list, dict and set factories are left out.
    field: T = msgspec.field(default_factory=lambda: value)
    return field


class Placement(msgspec.Struct, omit_defaults=True):
    """Where an asset should live: a cluster by name, servers by tag (`!tag` excludes), a leader for step-down."""

    cluster: str = ""
    tags: list[str] = []
    preferred: str = ""


class SubjectTransform(msgspec.Struct):
    """A mapping of subjects; `src` empty means `>`."""

    src: str = ""
    dest: str = ""


class Republish(msgspec.Struct, omit_defaults=True):
    """Stored messages go out again under `dest`."""

    src: str = always("")
    dest: str = always("")
    headers_only: bool = False


class ExternalStream(msgspec.Struct):
    """API and delivery prefixes of a stream in another account or domain."""

    api: str = ""
    deliver: str = ""


class SourceConsumer(msgspec.Struct, omit_defaults=True):
    """A durable consumer made by a client for a mirror or source."""

    name: str = ""
    deliver_subject: str = ""


class StreamSource(msgspec.Struct, omit_defaults=True):
    """The origin of a mirror or source."""

    name: str = always("")
    opt_start_seq: Uint64 = 0
    opt_start_time: Time | None = None
    filter_subject: str = ""
    subject_transforms: list[SubjectTransform] = []
    external: ExternalStream | None = None
    consumer: SourceConsumer | None = None


class ConsumerLimits(msgspec.Struct, omit_defaults=True):
    """Defaults and caps for new consumers of a stream."""

    inactive_threshold: Duration = 0
    max_ack_pending: Int = 0


class StreamConfig(msgspec.Struct, omit_defaults=True):
    """A stream's configuration; after `check_stream_config` every default is filled in."""

    name: str = always("")
    description: str = ""
    subjects: list[str] = []
    retention: Retention = always("limits")
    max_consumers: Int = always(0)
    max_msgs: Int64 = always(0)
    max_bytes: Int64 = always(0)
    max_age: Duration = always(0)
    max_msgs_per_subject: Int64 = always(0)
    max_msg_size: Int32 = 0
    discard: Discard = always("old")
    storage: Storage = always("file")
    num_replicas: Int = always(0)
    no_ack: bool = False
    duplicate_window: Duration = 0
    placement: Placement | None = None
    mirror: StreamSource | None = None
    sources: list[StreamSource] = []
    compression: Compression = always("none")
    first_seq: Uint64 = 0
    subject_transform: SubjectTransform | None = None
    republish: Republish | None = None
    allow_direct: bool = always(False)
    mirror_direct: bool = always(False)
    discard_new_per_subject: bool = False
    sealed: bool = always(False)
    deny_delete: bool = always(False)
    deny_purge: bool = always(False)
    allow_rollup_hdrs: bool = always(False)
    consumer_limits: ConsumerLimits = msgspec.field(default_factory=ConsumerLimits)
    allow_msg_ttl: bool = always(False)
    subject_delete_marker_ttl: Duration = 0
    allow_msg_counter: bool = False
    allow_atomic: bool = False
    allow_msg_schedules: bool = False
    persist_mode: PersistMode = ""
    allow_batched: bool = False
    metadata: dict[str, str] = {}


class ConsumerConfig(msgspec.Struct, omit_defaults=True):
    """A consumer's configuration; after `check_consumer_config` every default is filled in."""

    durable_name: str = ""
    name: str = ""
    description: str = ""
    deliver_policy: DeliverPolicy = always("all")
    opt_start_seq: Uint64 = 0
    opt_start_time: Time | None = None
    ack_policy: AckPolicy = always("none")
    ack_wait: Duration = 0
    max_deliver: Int = 0
    backoff: list[Duration] = []
    filter_subject: str = ""
    filter_subjects: list[str] = []
    replay_policy: ReplayPolicy = always("instant")
    rate_limit_bps: Uint64 = 0
    sample_freq: str = ""
    max_waiting: Int = 0
    max_ack_pending: Int = 0
    flow_control: bool = False
    headers_only: bool = False
    max_batch: Int = 0
    max_expires: Duration = 0
    max_bytes: Int = 0
    deliver_subject: str = ""
    deliver_group: str = ""
    idle_heartbeat: Duration = 0
    inactive_threshold: Duration = 0
    num_replicas: Int = always(0)
    mem_storage: bool = False
    direct: bool = False
    sourcing: bool = False
    metadata: dict[str, str] = {}
    pause_until: Time | None = None
    priority_groups: list[str] = []
    priority_policy: PriorityPolicy = ""
    priority_timeout: Duration = 0


# ---- requests ----


class StreamConfigRequest(StreamConfig, omit_defaults=True):
    """Body of STREAM.CREATE and STREAM.UPDATE."""

    pedantic: bool = False

    def config(self) -> StreamConfig:
        """The configuration alone."""
        return StreamConfig(**{name: getattr(self, name) for name in StreamConfig.__struct_fields__})


class CreateConsumerRequest(msgspec.Struct, omit_defaults=True):
    """Body of CONSUMER.CREATE and CONSUMER.DURABLE.CREATE."""

    stream_name: str = ""
    config: ConsumerConfig = msgspec.field(default_factory=ConsumerConfig)
    action: Action = ""
    pedantic: bool = False


class PageRequest(msgspec.Struct, omit_defaults=True):
    """Body of CONSUMER.NAMES and CONSUMER.LIST."""

    offset: Int = 0


class StreamsRequest(msgspec.Struct, omit_defaults=True):
    """Body of STREAM.NAMES and STREAM.LIST."""

    offset: Int = 0
    subject: str = ""


class StreamInfoRequest(msgspec.Struct, omit_defaults=True):
    """Body of STREAM.INFO."""

    offset: Int = 0
    deleted_details: bool = False
    subjects_filter: str = ""


class PurgeRequest(msgspec.Struct, omit_defaults=True):
    """Body of STREAM.PURGE."""

    seq: Uint64 = 0
    filter: str = ""
    keep: Uint64 = 0


class MsgGetRequest(msgspec.Struct, omit_defaults=True):
    """Body of STREAM.MSG.GET and DIRECT.GET."""

    seq: Uint64 = 0
    last_by_subj: str = ""
    next_by_subj: str = ""
    batch: Int = 0
    max_bytes: Int = 0
    start_time: Time | None = None
    multi_last: list[str] = []
    up_to_seq: Uint64 = 0
    up_to_time: Time | None = None
    no_hdr: bool = False


class MsgDeleteRequest(msgspec.Struct, omit_defaults=True):
    """Body of STREAM.MSG.DELETE."""

    seq: Uint64 = 0
    no_erase: bool = False


class StepDownRequest(msgspec.Struct, omit_defaults=True):
    """Body of the LEADER.STEPDOWN calls."""

    placement: Placement | None = None


class PeerRemoveRequest(msgspec.Struct, omit_defaults=True):
    """Body of STREAM.PEER.REMOVE; `peer` is a name or an id."""

    peer: str = ""


class ServerRemoveRequest(msgspec.Struct, omit_defaults=True):
    """Body of SERVER.REMOVE: a name, or the id of a server."""

    peer: str = ""
    peer_id: str = ""


class MoveRequest(msgspec.Struct, omit_defaults=True):
    """Body of ACCOUNT.STREAM.MOVE: `server` is who shall hold the stream no longer."""

    server: str = ""
    cluster: str = ""
    domain: str = ""
    tags: list[str] = []


class PauseRequest(msgspec.Struct, omit_defaults=True):
    """Body of CONSUMER.PAUSE."""

    pause_until: Time | None = None


# ---- answers ----


class LostData(msgspec.Struct):
    """Sequences that damage took, and their bytes."""

    msgs: list[int]
    bytes: int


class StreamState(msgspec.Struct, omit_defaults=True):
    """What a stream holds. `subjects` and `deleted` only on request."""

    messages: int = always(0)
    bytes: int = always(0)
    first_seq: int = always(0)
    first_ts: str = always(ZERO_TIME)
    last_seq: int = always(0)
    last_ts: str = always(ZERO_TIME)
    num_subjects: int = 0
    subjects: dict[str, int] = {}
    num_deleted: int = 0
    deleted: list[int] = []
    lost: LostData | None = None
    consumer_count: int = always(0)


class PeerInfo(msgspec.Struct, omit_defaults=True):
    """One replica as the answering server sees it; active: ns since contact; lag: entries behind; peer: its id."""

    name: str
    current: bool
    offline: bool = False
    active: int = always(0)
    lag: int = 0
    peer: str = always("")


class ClusterInfo(msgspec.Struct, omit_defaults=True):
    """Where an asset lives. `replicas` leaves the leader out."""

    name: str = ""
    raft_group: str = ""
    leader: str = ""
    leader_since: str | None = None
    system_account: bool = False
    traffic_account: str = ""
    replicas: list[PeerInfo] = []


class ErrorBody(msgspec.Struct):
    """`error` of an answer; see `errors.problem`."""

    code: int
    err_code: int
    description: str


class StreamSourceInfo(msgspec.Struct, omit_defaults=True):
    """Progress of a mirror or source; active: ns since contact, -1 never."""

    name: str
    external: ExternalStream | None = None
    lag: int = always(0)
    active: int = always(-1)
    error: ErrorBody | None = None
    filter_subject: str = ""
    subject_transforms: list[SubjectTransform] = []


class StreamAlternate(msgspec.Struct, omit_defaults=True):
    """A stream that can answer for another: the stream itself or a mirror of it."""

    name: str
    domain: str = ""
    cluster: str = always("")


class StreamInfo(msgspec.Struct, omit_defaults=True):
    """A stream with its state; created and ts are RFC 3339."""

    config: StreamConfig
    created: str
    state: StreamState
    domain: str = ""
    cluster: ClusterInfo | None = None
    mirror: StreamSourceInfo | None = None
    sources: list[StreamSourceInfo] = []
    alternates: list[StreamAlternate] = []
    ts: str = always(ZERO_TIME)


class SequenceInfo(msgspec.Struct, omit_defaults=True):
    """A position of a consumer in both countings."""

    consumer_seq: int = always(0)
    stream_seq: int = always(0)
    last_active: str | None = None


class PriorityGroupState(msgspec.Struct, omit_defaults=True):
    """Which client a priority group is pinned to."""

    group: str
    pinned_client_id: str = ""
    pinned_ts: str = always(ZERO_TIME)


class ConsumerInfo(msgspec.Struct, omit_defaults=True):
    """A consumer with its state; created and ts are RFC 3339, pause_remaining ns."""

    stream_name: str
    name: str
    created: str
    config: ConsumerConfig
    delivered: SequenceInfo
    ack_floor: SequenceInfo
    num_ack_pending: int = always(0)
    num_redelivered: int = always(0)
    num_waiting: int = always(0)
    num_pending: int = always(0)
    cluster: ClusterInfo | None = None
    push_bound: bool = False
    paused: bool = False
    pause_remaining: int = 0
    ts: str = always(ZERO_TIME)
    priority_groups: list[PriorityGroupState] = []


class AccountLimits(msgspec.Struct):
    """Limits of an account; -1 is none."""

    max_memory: int = -1
    max_storage: int = -1
    max_streams: int = -1
    max_consumers: int = -1
    max_ack_pending: int = -1
    memory_max_stream_bytes: int = -1
    storage_max_stream_bytes: int = -1
    max_bytes_required: bool = False


class ApiStats(msgspec.Struct, omit_defaults=True):
    """Calls of the API so far."""

    level: int = always(API_LEVEL)
    total: int = always(0)
    errors: int = always(0)
    inflight: int = 0


class Tier(msgspec.Struct):
    """Usage and limits of one replica tier."""

    memory: int = 0
    storage: int = 0
    reserved_memory: int = 0
    reserved_storage: int = 0
    streams: int = 0
    consumers: int = 0
    limits: AccountLimits = msgspec.field(default_factory=AccountLimits)


class AccountStats(msgspec.Struct, omit_defaults=True):
    """Answer of INFO; memory and storage in bytes."""

    memory: int = always(0)
    storage: int = always(0)
    reserved_memory: int = always(0)
    reserved_storage: int = always(0)
    streams: int = always(0)
    consumers: int = always(0)
    limits: AccountLimits = msgspec.field(default_factory=AccountLimits)
    domain: str = ""
    api: ApiStats = msgspec.field(default_factory=ApiStats)
    tiers: dict[str, Tier] = {}


class StoredMessage(msgspec.Struct, omit_defaults=True):
    """`message` of STREAM.MSG.GET; hdrs is the whole header block; both go out as base64."""

    subject: str
    seq: int
    hdrs: bytes = b""
    data: bytes = b""
    time: str = always(ZERO_TIME)


class Paging(msgspec.Struct):
    """Which part of a list an answer holds."""

    total: int = 0
    offset: int = 0
    limit: int = 0


def page(items: list[T], offset: int, limit: int) -> tuple[list[T], Paging]:
    """The slice of a list that a request with this offset gets; offset is clamped to [0, len]."""
    offset = min(max(offset, 0), len(items))
    return items[offset : offset + limit], Paging(len(items), offset, limit)


_encoder = msgspec.json.Encoder(order="deterministic")
_ESCAPES = (
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    (b"&", b"\\u0026"),
    ("\u2028".encode(), b"\\u2028"),
    ("\u2029".encode(), b"\\u2029"),
)


def encode(value: Any) -> bytes:
    """JSON as the peer writes it: no blanks, maps sorted by key, `<`, `>`, `&` and the two separators escaped."""
    out = _encoder.encode(value)
    for raw, escaped in _ESCAPES:  # outside strings none of them occurs in JSON
        if raw in out:
            out = out.replace(raw, escaped)
    return out


def encode_response(
    type_name: str,
    payload: dict[str, Any] | msgspec.Struct | None = None,
    error: ApiError | None = None,
    *,
    paging: Paging | None = None,
    **extra: Any,
) -> bytes:
    """An answer of the API: type, error, paging, the payload's fields, then `extra` (such as did_create=True).

    type_name is the part between prefix and `_response`, such as `stream_create`.
    """
    parts: list[bytes] = [b'"type":"%s%s_response"' % (TYPE_PREFIX.encode(), type_name.encode())]
    if error is not None:
        parts.append(b'"error":' + encode(ErrorBody(error.code, error.err_code, error.description)))
    for fields in (paging, payload, extra):
        if fields is not None:
            body = (
                b"{" + b",".join(encode(k) + b":" + encode(v) for k, v in fields.items()) + b"}"
                if isinstance(fields, dict)
                else encode(fields)
            )
            if len(body) > 2:
                parts.append(body[1:-1])
    return b"{" + b",".join(parts) + b"}"


# ---- time ----

_EPOCH = datetime.datetime(1970, 1, 1)
_TIME = re.compile(r"(\d{4})-(\d{2})-(\d{2})T(\d{2}):(\d{2}):(\d{2})(?:[.,](\d+))?(Z|[+-]\d{2}:\d{2})", re.ASCII)
ZERO_TIME_NS = -62135596800 * 1_000_000_000


def format_time(unix_ns: int) -> str:
    """RFC 3339 in UTC with up to nine decimals, trailing zeros trimmed; 0 (no time) is the zero time.

    Raises: OverflowError outside the years 1..9999.
    """
    if unix_ns == 0:
        return ZERO_TIME
    seconds, ns = divmod(unix_ns, 1_000_000_000)
    text = (_EPOCH + datetime.timedelta(seconds=seconds)).isoformat()
    return f"{text}.{ns:09d}".rstrip("0").rstrip(".") + "Z" if ns else text + "Z"


def parse_time(text: str) -> int:
    """Unix nanoseconds of an RFC 3339 time; the zero time gives 0, decimals after the ninth are dropped.

    Raises: ValueError.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"not a time: {text[:64]!r}")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    delta = datetime.datetime(year, month, day, hour, minute, second) - _EPOCH
    seconds = delta.days * 86400 + delta.seconds
    zone = match[8]
    if zone != "Z":
        offset = int(zone[1:3]) * 3600 + int(zone[4:6]) * 60
        if int(zone[1:3]) > 24 or int(zone[4:6]) > 59:
            raise ValueError(f"not a time: {text[:64]!r}")
        seconds -= offset if zone[0] == "+" else -offset
    ns = seconds * 1_000_000_000 + int(((match[7] or "") + "000000000")[:9])
    return 0 if ns == ZERO_TIME_NS else ns
