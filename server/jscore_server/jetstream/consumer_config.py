"""What a consumer may be: defaults, rules, updates.

Features this server has no engine for are refused after the ordinary rules, so that a bad request hears its real fault
first. Source: spec jetstream-consumers §2-§5, §18; order and texts checked against nats-server v2.14.5.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from jscore_server.jetstream.errors import problem
from jscore_server.jetstream.models import API_LEVEL, ConsumerConfig, CreateConsumerRequest, StreamConfig, parse_time
from jscore_server.jetstream.names import (
    MAX_DESCRIPTION_BYTES,
    MAX_METADATA_BYTES,
    MAX_NAME_BYTES,
    SubjectIndex,
    TooManySubjects,
    has_path_separator,
    is_literal,
    is_valid_name,
    is_valid_subject,
    overlapping_pair,
    subjects_overlap,
)
from jscore_server.jetstream.stream_config import (
    LEVEL_KEY,
    NO_LIMITS,
    JetStreamLimits,
    metadata_bytes,
    own_metadata,
    pedantic_error,
    refuse,
    unsupported,
)
from jscore_server.protocol.duration import go_duration

DEFAULT_ACK_WAIT_NS = 30_000_000_000
DEFAULT_MAX_WAITING = 512
DEFAULT_MAX_ACK_PENDING = 1000
DEFAULT_INACTIVE_NS = 5_000_000_000  # ephemeral only
MIN_HEARTBEAT_NS = 100_000_000
MIN_EXPIRES_NS = 1_000_000

DELIVER_POLICIES = {"all": 0, "last": 1, "new": 2, "by_start_sequence": 3, "by_start_time": 4, "last_per_subject": 5}
DELIVER_NAMES = {
    "by_start_sequence": "by start sequence",
    "by_start_time": "by start time",
    "last_per_subject": "last per subject",
}
ACK_POLICIES = {"none": 0, "all": 1, "explicit": 2}  # JSC_ACK_*
ZERO_TIME = "0001-01-01T00:00:00"
GROUP_NAME = re.compile(r"[A-Za-z0-9/_=-]{1,16}")


def check_consumer_request(
    request: CreateConsumerRequest, *, stream: str, name: str = "", filter_subject: str = "", durable: bool = False
) -> ConsumerConfig:
    """The configuration of a create request, once its subject and body agree.

    stream, name, filter_subject: tokens of the request's subject (name and filter empty when it has none); durable:
    True for CONSUMER.DURABLE.CREATE. The result's `name` is empty when the server is to choose one.
    Raises: ApiError.
    """
    config = msgspec.structs.replace(request.config)
    if request.stream_name != stream:
        raise problem(10056)
    if any(has_path_separator(text) for text in (name, config.name, config.durable_name)):
        raise problem(10127)
    if durable:
        if not config.durable_name:
            raise problem(10018)
        if config.durable_name != name:
            raise problem(10017)
    elif name:
        if config.durable_name and config.durable_name != name:
            raise problem(10017)
    elif config.durable_name:
        raise problem(10020)
    if filter_subject:
        if config.filter_subjects:
            raise problem(10137)
        if config.filter_subject != filter_subject:
            raise problem(10131)
    if name:
        config.name = name
    return config


def check_consumer_config(
    config: ConsumerConfig,
    stream: StreamConfig,
    *,
    pedantic: bool = False,
    clustered: bool = False,
    limits: JetStreamLimits = NO_LIMITS,
) -> ConsumerConfig:
    """A copy of the configuration with every default filled in and its metadata stamped.

    stream: a checked configuration. `name` stays empty when the server is to choose one. Rules that need the stream's
    other consumers are in `check_workqueue`. Raises: ApiError.
    """
    config = msgspec.structs.replace(config)
    if config.pause_until is not None and config.pause_until.startswith(ZERO_TIME):
        config.pause_until = None  # clients written in Go send the zero time for "not paused"
    if not clustered and config.num_replicas > 1:
        raise problem(10074)
    if pedantic:
        _check_pedantic(config, stream, limits)
    _fill_defaults(config, stream, limits)
    _check_names(config)
    _check_replicas(config, stream)
    _check_acks(config)
    if config.deliver_subject:
        _check_push(config, stream)
    else:
        _check_pull(config, stream, limits)
    _check_limits(config, stream, limits)
    _check_filters(config)
    _check_start(config)
    _check_sampling(config)
    if config.flow_control and not config.idle_heartbeat:
        raise problem(10108)
    if metadata_bytes(config.metadata) > MAX_METADATA_BYTES:
        raise problem(10135, limit="128KB")
    _check_groups(config)
    _check_supported(config)
    return stamp_consumer_metadata(config)


NOT_NEGATIVE = (
    "max_waiting",
    "max_batch",
    "max_expires",
    "max_bytes",
    "idle_heartbeat",
    "inactive_threshold",
    "priority_timeout",
)


def _check_pedantic(config: ConsumerConfig, stream: StreamConfig, limits: JetStreamLimits) -> None:
    for field in NOT_NEGATIVE:
        if getattr(config, field) < 0:
            raise pedantic_error(f"{field} must not be negative")
    for field in ("max_deliver", "max_ack_pending"):
        if getattr(config, field) < -1:
            raise pedantic_error(f"{field} must be set to -1")
    if config.backoff and config.ack_wait and config.ack_wait != config.backoff[0]:
        raise pedantic_error("first backoff value has to equal batch AckWait")
    for field in ("inactive_threshold", "max_ack_pending"):
        if getattr(stream.consumer_limits, field) > 0 and not getattr(config, field):
            raise pedantic_error(f"{field} must be set if it's configured in stream limits")
    if limits.server_max_request_batch > 0 and not config.max_batch:
        raise pedantic_error("max_batch must be set if it's JetStream limits are set")


def _fill_defaults(config: ConsumerConfig, stream: StreamConfig, limits: JetStreamLimits) -> None:
    for field in NOT_NEGATIVE:
        if getattr(config, field) < 0:
            setattr(config, field, 0)
    if config.max_deliver == 0 or config.max_deliver < -1:
        config.max_deliver = -1
    acked = config.ack_policy in ("all", "explicit")
    if config.backoff and config.ack_wait >= 0:
        config.ack_wait = config.backoff[0]
    elif acked and config.ack_wait == 0:
        config.ack_wait = DEFAULT_ACK_WAIT_NS
    if not config.deliver_subject:
        config.max_waiting = config.max_waiting or DEFAULT_MAX_WAITING
        if config.max_batch == 0 and limits.server_max_request_batch > 0:
            config.max_batch = limits.server_max_request_batch
    if config.max_ack_pending < -1:
        config.max_ack_pending = -1
    if config.max_ack_pending == 0:
        of_stream = stream.consumer_limits.max_ack_pending
        if of_stream > 0:
            config.max_ack_pending = of_stream
        elif config.ack_policy != "none":
            caps = [cap for cap in (limits.max_ack_pending, limits.server_max_ack_pending) if cap > 0]
            config.max_ack_pending = min([DEFAULT_MAX_ACK_PENDING, *caps])
    if config.inactive_threshold == 0:
        if stream.consumer_limits.inactive_threshold > 0:
            config.inactive_threshold = stream.consumer_limits.inactive_threshold
        elif not config.durable_name:
            config.inactive_threshold = DEFAULT_INACTIVE_NS
    if config.durable_name and not config.name:
        config.name = config.durable_name


def _check_names(config: ConsumerConfig) -> None:
    if config.durable_name and config.name != config.durable_name:
        raise problem(10132)
    if config.name:
        if has_path_separator(config.name):
            raise problem(10127)
        if not is_valid_name(config.name):
            raise refuse("consumer name can not contain '.', '*', '>', '\\', '/'")
        if len(config.name.encode()) > MAX_NAME_BYTES:
            if config.durable_name:
                raise problem(10102, max=MAX_NAME_BYTES)
            raise problem(10012, err="error creating store for consumer")
    if len(config.description.encode()) > MAX_DESCRIPTION_BYTES:
        raise problem(10107, max=MAX_DESCRIPTION_BYTES)


def _check_replicas(config: ConsumerConfig, stream: StreamConfig) -> None:
    if config.num_replicas < 0:
        raise problem(10133)
    if config.num_replicas > stream.num_replicas:
        raise problem(10126)
    if config.num_replicas and stream.retention != "limits" and config.num_replicas != stream.num_replicas:
        raise problem(10134)


def _check_acks(config: ConsumerConfig) -> None:
    if any(wait < 0 for wait in config.backoff):
        raise problem(10184)
    if config.ack_wait < 0:
        raise problem(10183)
    if config.backoff and 0 < config.max_deliver < len(config.backoff):
        raise problem(10116)
    if config.ack_policy == "flow_control":
        for wrong, number in (
            (not config.deliver_subject, 10218),
            (not config.flow_control, 10219),
            (config.max_ack_pending <= 0, 10220),
            (config.ack_wait > 0 or bool(config.backoff), 10221),
            (config.max_deliver > 0, 10222),
        ):
            if wrong:
                raise problem(number)


def _check_push(config: ConsumerConfig, stream: StreamConfig) -> None:
    if not is_valid_subject(config.deliver_subject):
        raise problem(10112)
    if not is_literal(config.deliver_subject):
        raise problem(10079)
    if any(subjects_overlap(config.deliver_subject, subject) for subject in stream.subjects):
        raise problem(10081)
    if config.max_waiting:
        raise problem(10080)
    if config.max_ack_pending > 0 and config.ack_policy == "none":
        raise problem(10082)
    if 0 < config.idle_heartbeat < MIN_HEARTBEAT_NS:
        raise problem(10083)


def _check_pull(config: ConsumerConfig, stream: StreamConfig, limits: JetStreamLimits) -> None:
    if stream.retention == "workqueue" and config.ack_policy == "none":
        raise problem(10084)
    if config.rate_limit_bps:
        raise problem(10086)
    if config.idle_heartbeat:
        raise problem(10088)
    if config.flow_control:
        raise problem(10089)
    if 0 < config.max_expires < MIN_EXPIRES_NS:
        raise problem(10115)
    if 0 < limits.server_max_request_batch < config.max_batch:
        raise problem(10125, limit=limits.server_max_request_batch)


def _check_limits(config: ConsumerConfig, stream: StreamConfig, limits: JetStreamLimits) -> None:
    of_stream = stream.consumer_limits
    for most in (limits.server_max_ack_pending, limits.max_ack_pending, of_stream.max_ack_pending):
        if 0 < most < config.max_ack_pending:
            raise problem(10121, limit=most)
    if 0 < of_stream.inactive_threshold < config.inactive_threshold:
        raise problem(10153, limit=go_duration(of_stream.inactive_threshold))
    if config.direct:
        if not config.deliver_subject:
            raise problem(10090)
        if config.durable_name:
            raise problem(10091)


def _check_filters(config: ConsumerConfig) -> None:
    if config.filter_subject and config.filter_subjects:
        raise problem(10136)
    if config.filter_subject and not is_valid_subject(config.filter_subject):
        raise refuse("invalid subject")
    for subject in config.filter_subjects:
        if not subject:
            raise problem(10139)
        if not is_valid_subject(subject):
            raise refuse("invalid subject")
    try:
        if overlapping_pair(config.filter_subjects) is not None:
            raise problem(10138)
    except TooManySubjects:
        raise refuse("too many subjects to compare") from None


def _check_start(config: ConsumerConfig) -> None:
    policy = config.deliver_policy
    with_seq, with_time = config.opt_start_seq > 0, config.opt_start_time is not None
    reason = ""
    if policy == "last_per_subject" and not config.filter_subject and not config.filter_subjects:
        reason = "filter subject is not set"
    elif policy == "by_start_sequence":
        if not with_seq:
            reason = "start sequence is not set"
        elif with_time:
            reason = "start time is also set"
    elif policy == "by_start_time":
        if not with_time:
            reason = "start time is not set"
        elif with_seq:
            reason = "start start sequence is also set"  # twice, as in the peer
    elif with_seq:
        reason = "start sequence is also set"
    elif with_time:
        reason = "start time is also set"
    if reason:
        name = DELIVER_NAMES.get(policy, policy)
        raise problem(10094, err=f"consumer delivery policy is deliver {name}, but optional {reason}")


def _check_sampling(config: ConsumerConfig) -> None:
    if not config.sample_freq:
        return
    text = config.sample_freq.removesuffix("%")
    if re.fullmatch(r"[+-]?[0-9]{1,18}", text) is None:
        raise problem(10095, err=f'strconv.Atoi: parsing "{text[:64]}": invalid syntax')
    if int(text) < 0:
        raise problem(10095, err="<nil>")


def _check_groups(config: ConsumerConfig) -> None:
    if config.priority_policy:
        if config.deliver_subject:
            raise problem(10178)
        if not config.priority_groups:
            raise problem(10159)
        for group in config.priority_groups:
            if not group:
                raise problem(10161)
            if GROUP_NAME.fullmatch(group) is None:
                raise problem(10162)
    elif config.priority_groups:
        raise problem(10196)
    elif config.priority_timeout:
        raise problem(10197)


def _check_supported(config: ConsumerConfig) -> None:
    for wanted, feature in (
        (config.ack_policy == "flow_control", "ack_policy flow_control"),
        (bool(config.priority_policy), "priority_policy"),
        (config.pause_until is not None, "pause_until"),
        (config.rate_limit_bps > 0, "rate_limit_bps"),
        (config.sample_freq.removesuffix("%").strip("+-0") != "", "sample_freq"),
        (config.direct, "direct"),
        (config.sourcing, "sourcing"),
    ):
        if wanted:
            raise unsupported(feature)


def check_workqueue(config: ConsumerConfig, stream: StreamConfig, others: Iterable[ConsumerConfig]) -> None:
    """The rules of a work queue's consumers; others: the stream's consumers without this one.

    Raises: ApiError 10098-10101; none on other streams.
    """
    if stream.retention != "workqueue":
        return
    if config.ack_policy not in ("explicit", "flow_control"):
        raise problem(10098)
    mine = filters_of(config)
    taken = SubjectIndex()
    any_other = False
    try:
        for other in others:
            any_other = True
            for subject in filters_of(other) or [">"]:
                taken.add(subject)
        if any_other and not mine:
            raise problem(10099)
        if any(taken.find(subject) is not None for subject in mine):
            raise problem(10100)
    except TooManySubjects:
        raise refuse("too many subjects to compare") from None
    if config.deliver_policy != "all":
        raise problem(10101)


def filters_of(config: ConsumerConfig) -> list[str]:
    """The consumer's filters as one list; empty means everything."""
    return [config.filter_subject] if config.filter_subject else list(config.filter_subjects)


def check_consumer_update(old: ConsumerConfig, new: ConsumerConfig) -> ConsumerConfig:
    """The configuration an update leads to, both sides as `check_consumer_config` returned them.

    Whether the old deliver subject is still in use (10013) is for the caller, who sees interest. Raises: ApiError.
    """
    for changed, what in (
        (new.deliver_policy != old.deliver_policy, "deliver policy"),
        (new.opt_start_seq != old.opt_start_seq, "start sequence"),
        (new.opt_start_time != old.opt_start_time, "start time"),
        (new.ack_policy != old.ack_policy, "ack policy"),
        (new.replay_policy != old.replay_policy, "replay policy"),
        (new.mem_storage != old.mem_storage, "storage type"),
    ):
        if changed:
            raise problem(10012, err=f"{what} can not be updated")
    if bool(new.deliver_subject) != bool(old.deliver_subject):
        way = "pull consumer to push based" if new.deliver_subject else "push consumer to pull based"
        raise problem(10012, err=f"can not update {way}")
    for changed, what in (
        (new.idle_heartbeat != old.idle_heartbeat, "heart beats"),
        (new.flow_control != old.flow_control, "flow control"),
        (new.max_waiting != old.max_waiting, "max waiting"),
    ):
        if changed:
            raise problem(10012, err=f"{what} can not be updated")
    return msgspec.structs.replace(new, pause_until=old.pause_until)


def same_consumer_config(a: ConsumerConfig, b: ConsumerConfig) -> bool:
    """True when a create with `b` finds `a` already there: all equal but the versioning metadata."""
    return msgspec.structs.replace(a, metadata=own_metadata(a.metadata)) == msgspec.structs.replace(
        b, metadata=own_metadata(b.metadata)
    )


def required_consumer_level(config: ConsumerConfig) -> int:
    """The lowest API level of a server that can hold this consumer (ADR-44)."""
    if config.ack_policy == "flow_control" or config.sourcing:
        return 4
    return 1 if config.pause_until is not None or config.priority_policy or config.priority_groups else 0


def stamp_consumer_metadata(config: ConsumerConfig) -> ConsumerConfig:
    """A copy whose metadata is what is stored: the level computed, the server's version not among it."""
    metadata = {**own_metadata(config.metadata), LEVEL_KEY: str(required_consumer_level(config))}
    return msgspec.structs.replace(config, metadata=metadata)


def shown_consumer_config(config: ConsumerConfig, version: str) -> ConsumerConfig:
    """A copy as create and info answers show it, with this server's version and level. LIST shows it without."""
    metadata = {**config.metadata, "_nats.ver": version, "_nats.level": str(API_LEVEL)}
    return msgspec.structs.replace(config, metadata=metadata)


def to_options(config: ConsumerConfig) -> dict[str, Any]:
    """The fields of `jsc_consumer_options` (csrc/stream/jsc_stream.h) for a checked configuration.

    `filters` is empty for everything; `deliver_subject` is empty for a pull consumer. A backoff takes part only where
    there are acks.
    """
    return {
        "deliver_policy": DELIVER_POLICIES[config.deliver_policy],
        "ack_policy": ACK_POLICIES[config.ack_policy],
        "opt_start_seq": config.opt_start_seq,
        "opt_start_ns": parse_time(config.opt_start_time) if config.opt_start_time else 0,
        "ack_wait_ns": config.ack_wait,
        "idle_heartbeat_ns": config.idle_heartbeat,
        "inactive_threshold_ns": config.inactive_threshold,
        "max_deliver": config.max_deliver,
        "max_ack_pending": config.max_ack_pending if config.ack_policy != "none" else -1,
        "max_waiting": config.max_waiting,
        "max_batch": config.max_batch,
        "max_bytes": config.max_bytes,
        "max_expires_ns": config.max_expires,
        "backoff_ns": list(config.backoff) if config.ack_policy != "none" else [],
        "filters": filters_of(config),
        "deliver_subject": config.deliver_subject,
        "deliver_group": config.deliver_group,
        "flow_control": config.flow_control,
        "headers_only": config.headers_only,
        "replay_original": config.replay_policy == "original",
    }
