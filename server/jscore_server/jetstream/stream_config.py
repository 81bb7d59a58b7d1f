"""What a stream may be: defaults, rules, updates.

Every rule that has no number of its own is 10052 with the reason as the whole text. Features this server has no engine
for are refused after the ordinary rules, so that a bad request hears its real fault first.
Source: spec jetstream-streams §4, §5, §22; texts checked against nats-server v2.14.5.
"""

from __future__ import annotations

from typing import Any

import msgspec

from jscore_server.jetstream.errors import ApiError, problem
from jscore_server.jetstream.models import API_LEVEL, AccountLimits, StreamConfig, StreamSource
from jscore_server.jetstream.names import (
    MAX_DESCRIPTION_BYTES,
    MAX_METADATA_BYTES,
    MAX_NAME_BYTES,
    TooManySubjects,
    has_path_separator,
    is_subset,
    is_valid_name,
    is_valid_subject,
    overlapping_pair,
    subjects_overlap,
)
from jscore_server.protocol.duration import go_duration

MAX_REPLICAS = 5
MIN_AGE_NS = 100_000_000
MIN_MARKER_TTL_NS = 1_000_000_000
DEFAULT_DUPLICATE_WINDOW_NS = 120_000_000_000

LEVEL_KEY = "_nats.req.level"
VERSION_KEYS = ("_nats.ver", "_nats.level")

# Patterns whose capture would answer the server's own requests with acks, what is allowed among them, and their name
# in the text.
RESERVED = (
    ("$JS.>", "$JS.EVENT.>", "jetstream"),
    ("$JSC.>", "", "jetstream"),
    ("$NRG.>", "", "jetstream"),
    ("$SYS.>", "$SYS.ACCOUNT.>", "system"),
)
RETENTIONS = {"limits": 0, "interest": 1, "workqueue": 2}  # JSC_RETAIN_*


class JetStreamLimits(msgspec.Struct, frozen=True):
    """Limits of the account and of the server that bear on configurations; -1 (or 0 where it says so) is none.

    Bytes and ns. max_memory and max_storage are the account's, server_* the server's own.
    """

    max_memory: int = -1
    max_storage: int = -1
    max_streams: int = -1
    max_consumers: int = -1
    max_ack_pending: int = -1
    memory_max_stream_bytes: int = -1  # 0 is none as well
    storage_max_stream_bytes: int = -1
    max_bytes_required: bool = False
    server_max_memory: int = -1
    server_max_storage: int = -1
    server_max_ack_pending: int = -1
    server_duplicate_window: int = 0  # 0 none
    server_max_request_batch: int = 0  # 0 none
    cluster_name: str = ""


NO_LIMITS = JetStreamLimits()


def shown_limits(limits: JetStreamLimits) -> AccountLimits:
    """The account's part of them, as INFO shows it."""
    return AccountLimits(**{name: getattr(limits, name) for name in AccountLimits.__struct_fields__})


def refuse(reason: str) -> ApiError:
    """10052: the reason is the whole text."""
    return problem(10052, err=reason)


def unsupported(feature: str) -> ApiError:
    """10052 for a valid request this server cannot serve."""
    return refuse(f"{feature} is not supported by this server yet")


def pedantic_error(reason: str) -> ApiError:
    """10157."""
    return problem(10157, err=reason)


def check_stream_config(
    config: StreamConfig,
    *,
    pedantic: bool = False,
    clustered: bool = False,
    limits: JetStreamLimits = NO_LIMITS,
    update: bool = False,
) -> StreamConfig:
    """A copy of the configuration with every default filled in and its metadata stamped.

    update: True for STREAM.UPDATE, where `sealed` is allowed (then also call `check_stream_update`).
    Overlap with other streams (10065), counts and reservations need more than the configuration: see
    `check_reservation`. Raises: ApiError.
    """
    config = msgspec.structs.replace(config)
    _check_names(config)
    _fill_counts(config, pedantic)
    _check_replicas(config, clustered)
    _check_flags(config, pedantic, update)
    _check_windows(config, pedantic, limits)
    _check_origins(config)
    _check_subjects(config)
    _check_bytes(config, limits)
    _check_placement(config, clustered, limits)
    _check_supported(config)
    return stamp_metadata(config)


def _check_names(config: StreamConfig) -> None:
    if not is_valid_name(config.name):
        raise refuse("stream name is required and can not contain '.', '*', '>'")
    if len(config.name.encode()) > MAX_NAME_BYTES:
        raise refuse(f"stream name is too long, maximum allowed is {MAX_NAME_BYTES}")
    if has_path_separator(config.name):
        raise problem(10128)
    if len(config.description.encode()) > MAX_DESCRIPTION_BYTES:
        raise refuse(f"stream description is too long, maximum allowed is {MAX_DESCRIPTION_BYTES}")
    if metadata_bytes(config.metadata) > MAX_METADATA_BYTES:
        raise refuse(f"stream metadata exceeds maximum size of {MAX_METADATA_BYTES} bytes")


def metadata_bytes(metadata: dict[str, str]) -> int:
    """The size that is limited: keys and values, without JSON's own characters."""
    return sum(len(key.encode()) + len(value.encode()) for key, value in metadata.items())


def _fill_counts(config: StreamConfig, pedantic: bool) -> None:
    for field in ("max_consumers", "max_msgs", "max_bytes", "max_msgs_per_subject", "max_msg_size"):
        value = getattr(config, field)
        if value < -1 and pedantic:
            raise pedantic_error(f"{field} must be set to -1")
        if value <= 0:
            setattr(config, field, -1)


def _check_replicas(config: StreamConfig, clustered: bool) -> None:
    if config.num_replicas < 0:
        raise problem(10133)
    if config.num_replicas == 0:
        config.num_replicas = 1
    if config.num_replicas > MAX_REPLICAS:
        raise refuse(f"maximum replicas is {MAX_REPLICAS}")
    if config.num_replicas > 1 and not clustered:
        raise problem(10074)


def _check_flags(config: StreamConfig, pedantic: bool, update: bool) -> None:
    if config.subject_delete_marker_ttl < 0:
        raise refuse("subject delete marker TTL must not be negative")
    if 0 < config.subject_delete_marker_ttl < MIN_MARKER_TTL_NS:
        raise refuse("subject delete marker TTL must be at least 1 second")
    if config.subject_delete_marker_ttl:
        if config.mirror is not None:
            raise refuse("subject delete markers forbidden on mirrors")
        _force(
            config, "allow_msg_ttl", True, pedantic, "subject delete marker cannot be set if message TTLs are disabled"
        )
        _force(
            config, "allow_rollup_hdrs", True, pedantic, "subject delete marker cannot be set if roll-ups are disabled"
        )
        _force(config, "deny_purge", False, pedantic, "roll-ups require the purge permission")
    if config.allow_msg_counter:
        if config.discard == "new":
            raise refuse("counter stream cannot use discard new")
        if config.allow_msg_ttl:
            raise refuse("counter stream cannot use message TTLs")
        if config.allow_msg_schedules:
            raise refuse("counter stream cannot use message schedules")
        if config.retention != "limits":
            raise refuse("counter stream can only use limits retention")
    if config.allow_msg_schedules:
        if config.discard == "new":
            raise refuse("message scheduling cannot use discard new")
        _force(config, "allow_rollup_hdrs", True, pedantic, "message scheduling cannot be set if roll-ups are disabled")
        _force(config, "deny_purge", False, pedantic, "roll-ups require the purge permission")
    if config.persist_mode == "async":
        if config.storage != "file":
            raise refuse("async persist mode is only supported on file storage")
        if config.num_replicas > 1:
            raise refuse("async persist mode is not supported on replicated streams")
        if config.allow_atomic:
            raise refuse("async persist mode is not supported with atomic batch publish")
    if config.sealed and not update:
        raise refuse("stream configuration for create can not be sealed")
    if config.deny_purge and config.allow_rollup_hdrs and not config.sealed:
        raise refuse("roll-ups require the purge permission")
    if config.discard_new_per_subject:
        if config.discard != "new":
            raise refuse("discard new per subject requires discard new policy to be set")
        if config.max_msgs_per_subject <= 0:
            raise refuse("discard new per subject requires max msgs per subject > 0")
    if config.mirror_direct and config.mirror is None and not update:
        raise refuse("stream has no mirror but does have mirror direct")


def _force(config: StreamConfig, field: str, value: bool, pedantic: bool, reason: str) -> None:
    """A prerequisite: set silently, or refused when pedantic."""
    if getattr(config, field) != value:
        if pedantic:
            raise refuse(reason)
        setattr(config, field, value)


def _check_windows(config: StreamConfig, pedantic: bool, limits: JetStreamLimits) -> None:
    if config.max_age < 0:
        raise refuse("max age can not be negative")
    if 0 < config.max_age < MIN_AGE_NS:
        raise refuse("max age needs to be >= 100ms")
    if config.duplicate_window < 0:
        raise refuse("duplicates window can not be negative")
    most = limits.server_duplicate_window
    if config.duplicate_window == 0 and config.mirror is None and not config.sources:
        window = DEFAULT_DUPLICATE_WINDOW_NS
        if 0 < most < window:
            if pedantic:
                raise pedantic_error(f"duplicate window limit of {go_duration(most)} is below the default")
            window = most
        if 0 < config.max_age < window:
            if pedantic:
                raise pedantic_error("duplicate window cannot be bigger than max age")
            window = config.max_age
        config.duplicate_window = window
    if config.max_age and config.duplicate_window > config.max_age:
        raise refuse("duplicates window can not be larger then max age")
    if 0 < config.duplicate_window < MIN_AGE_NS:
        raise refuse("duplicates window needs to be >= 100ms")
    if 0 < most < config.duplicate_window:
        raise refuse(f"duplicates window can not be larger then server limit of {go_duration(most)}")


def _check_origins(config: StreamConfig) -> None:
    """The rules of §22 that need no other stream, so that a faulty request hears its own fault."""
    if config.mirror is not None:
        for wrong, number in (
            (bool(config.subjects), 10034),
            (bool(config.sources), 10031),
            (config.first_seq > 0, 10143),
            (config.allow_msg_counter, 10173),
            (config.allow_atomic, 10198),
            (config.allow_msg_schedules, 10186),
            (config.allow_batched, 10209),
            (not is_valid_name(config.mirror.name), 10142),
            (bool(config.mirror.filter_subject and config.mirror.subject_transforms), 10150),
        ):
            if wrong:
                raise problem(number)
    seen: list[StreamSource] = []
    for source in config.sources:
        if not is_valid_name(source.name):
            raise problem(10141)
        if source.filter_subject and source.subject_transforms:
            raise problem(10144)
        # Compared one by one: the list is bounded here, before it can cost the square of a body.
        if len(seen) >= 1000:
            raise refuse("too many sources")
        if source in seen:
            raise problem(10140)
        seen.append(source)
    if config.sources and config.allow_msg_schedules:
        raise problem(10187)


def _check_subjects(config: StreamConfig) -> None:
    if not config.subjects and config.mirror is None and not config.sources:
        config.subjects = [config.name]
    for subject in config.subjects:
        if not is_valid_subject(subject):
            raise refuse("invalid subject")
        if subject == ">":
            if not config.no_ack:
                raise refuse("capturing all subjects requires no-ack to be true")
            if config.num_replicas > 1:
                raise refuse("capturing all subjects is only allowed for streams with one replica")
        elif not config.no_ack:
            for pattern, allowed, api in RESERVED:
                if subjects_overlap(subject, pattern) and not (allowed and is_subset(subject, allowed)):
                    raise refuse(f"subjects that overlap with {api} api require no-ack to be true")
    try:
        pair = overlapping_pair(config.subjects)
    except TooManySubjects:
        raise refuse("too many subjects to compare") from None
    if pair is not None:
        raise refuse(f'subject "{pair[0]}" overlaps with "{pair[1]}"')


def _check_bytes(config: StreamConfig, limits: JetStreamLimits) -> None:
    if limits.max_bytes_required and config.max_bytes <= 0:
        raise problem(10113)
    memory = config.storage == "memory"
    most = limits.memory_max_stream_bytes if memory else limits.storage_max_stream_bytes
    if 0 < most < config.max_bytes:
        raise problem(10122)


def check_reservation(
    config: StreamConfig,
    limits: JetStreamLimits,
    *,
    reserved: int,
    server_reserved: int,
    old: StreamConfig | None = None,
) -> None:
    """Whether `max_bytes` still fits beside what other streams of this storage kind reserve.

    reserved, server_reserved: bytes reserved by the account and on the server, without this stream (`old` is only
    looked at to allow an update that asks for no more than before).
    Raises: ApiError 10028, 10047.
    """
    if config.max_bytes <= 0 or (old is not None and config.max_bytes <= old.max_bytes):
        return
    memory = config.storage == "memory"
    server_most = limits.server_max_memory if memory else limits.server_max_storage
    most = limits.max_memory if memory else limits.max_storage
    if 0 <= server_most < server_reserved + config.max_bytes or (
        0 <= most < reserved + config.max_bytes * config.num_replicas
    ):
        raise problem(10028 if memory else 10047)


def _check_placement(config: StreamConfig, clustered: bool, limits: JetStreamLimits) -> None:
    placement = config.placement
    if placement is None:
        return
    if placement.preferred:
        raise refuse("preferred server not permitted in placement")
    if not placement.cluster and not placement.tags:
        config.placement = None
        return
    # Alone there is nothing to choose from: the peer stores the wish and so do we.
    if clustered and placement.cluster and placement.cluster != limits.cluster_name:
        raise problem(10005, err="no suitable peers for placement")


def _check_supported(config: StreamConfig) -> None:
    for wanted, feature in (
        (config.mirror is not None, "mirror"),
        (bool(config.sources), "sources"),
        (config.republish is not None, "republish"),
        (config.subject_transform is not None, "subject_transform"),
        (config.subject_delete_marker_ttl > 0, "subject_delete_marker_ttl"),
        (config.allow_msg_counter, "allow_msg_counter"),
        (config.allow_atomic, "allow_atomic"),
        (config.allow_batched, "allow_batched"),
        (config.allow_msg_schedules, "allow_msg_schedules"),
        (config.persist_mode == "async", "persist_mode async"),
    ):
        if wanted:
            raise unsupported(feature)


def check_stream_update(old: StreamConfig, new: StreamConfig) -> StreamConfig:
    """The configuration an update leads to, both sides as `check_stream_config` returned them.

    Sealing forces what a sealed stream is. Raises: ApiError.
    """
    change = "stream configuration update can not "
    if new.name != old.name:
        raise refuse("stream configuration name must match original")
    if new.storage != old.storage:
        raise refuse(change + "change storage type")
    if new.retention != old.retention and "workqueue" in (new.retention, old.retention):
        raise refuse(change + "change retention policy to/from workqueue")
    if old.sealed and not new.sealed:
        raise refuse(change + "unseal a sealed stream")
    if not new.sealed:
        if old.deny_delete and not new.deny_delete:
            raise refuse(change + "cancel deny message deletes")
        if old.deny_purge and not new.deny_purge:
            raise refuse(change + "cancel deny purge")
    if old.allow_msg_ttl and not new.allow_msg_ttl:
        raise refuse("message TTL status can not be disabled")
    if old.allow_msg_counter != new.allow_msg_counter:
        raise refuse(change + "change message counter setting")
    if old.allow_msg_schedules and not new.allow_msg_schedules:
        raise refuse("message schedules can not be disabled")
    if old.persist_mode != new.persist_mode:
        raise refuse(change + "change persist mode")
    if new.mirror is not None and new.mirror != old.mirror:
        raise problem(10055)
    if new.sealed:
        new = msgspec.structs.replace(
            new, max_age=0, discard="new", deny_delete=True, deny_purge=True, allow_rollup_hdrs=False
        )
    return new


def same_config(a: StreamConfig, b: StreamConfig) -> bool:
    """True when a create with `b` finds `a` already there: all equal but the versioning metadata."""
    return msgspec.structs.replace(a, metadata=own_metadata(a.metadata)) == msgspec.structs.replace(
        b, metadata=own_metadata(b.metadata)
    )


def own_metadata(metadata: dict[str, str]) -> dict[str, str]:
    """The metadata without what servers write into it."""
    return {key: value for key, value in metadata.items() if key != LEVEL_KEY and key not in VERSION_KEYS}


def required_api_level(config: StreamConfig) -> int:
    """The lowest API level of a server that can hold this stream (ADR-44)."""
    if config.allow_batched:
        return 4
    if config.allow_msg_counter or config.allow_atomic or config.allow_msg_schedules or config.persist_mode == "async":
        return 2
    return 1 if config.allow_msg_ttl or config.subject_delete_marker_ttl > 0 else 0


def stamp_metadata(config: StreamConfig) -> StreamConfig:
    """A copy whose metadata is what is stored: the level computed, the server's version not among it."""
    metadata = {**own_metadata(config.metadata), LEVEL_KEY: str(required_api_level(config))}
    return msgspec.structs.replace(config, metadata=metadata)


def shown_config(config: StreamConfig, version: str) -> StreamConfig:
    """A copy as create, update and info answers show it, with this server's version and level; LIST shows neither."""
    metadata = {**config.metadata, "_nats.ver": version, "_nats.level": str(API_LEVEL)}
    return msgspec.structs.replace(config, metadata=metadata)


def to_limits(config: StreamConfig) -> dict[str, Any]:
    """The fields of `jsc_stream_limits` (csrc/stream/jsc_stream.h) for a checked configuration; -1 is none."""
    return {
        "max_msgs": config.max_msgs,
        "max_bytes": config.max_bytes,
        "max_msgs_per_subject": config.max_msgs_per_subject,
        "max_age_ns": config.max_age or -1,
        "duplicate_window_ns": config.duplicate_window or -1,
        "max_msg_size": config.max_msg_size,
        "retention": RETENTIONS[config.retention],
        "discard_new": config.discard == "new",
        "discard_new_per_subject": config.discard_new_per_subject,
        "no_ack": config.no_ack,
        "sealed": config.sealed,
        "deny_delete": config.deny_delete,
        "deny_purge": config.deny_purge,
        "allow_rollup": config.allow_rollup_hdrs,
        "file_storage": config.storage == "file",
        "first_seq": config.first_seq,
        "replicas": config.num_replicas,
    }
