"""The `jetstream` block, and the top level's `store_dir`. Pure."""

from __future__ import annotations

from typing import Any

from .kinds import (
    Reader,
    Rule,
    Wrong,
    between,
    boolean,
    checked,
    duration,
    integer,
    later,
    map_of,
    maps,
    mistyped,
    one_of,
    positive,
    refused,
    sets,
    size,
    strict_duration,
    string,
    table,
)
from .options import Options
from .parser import Entry

__all__ = ["jetstream", "top_store_dir"]


def sync_interval(reader: Reader, entry: Entry) -> float | str:
    value = entry.node.value
    if isinstance(value, str) and value.lower() == "always":
        return "always"
    return duration(reader, entry)


_BATCH = table(
    [
        sets("batch_max_inflight_per_stream", integer, name="max_inflight_per_stream"),
        sets("batch_max_inflight_total", integer, name="max_inflight_total"),
        sets("batch_max_msgs", integer, name="max_msgs"),
        sets("batch_timeout", strict_duration, name="timeout"),
    ]
)


def _batch(reader: Reader, target: Any, entry: Entry) -> None:
    reader.block(map_of(entry), _BATCH, target, "jetstream.limits.batch.")


_LIMITS = table(
    [
        sets("max_ack_pending", integer),
        sets("max_ha_assets", integer),
        sets("max_request_batch", integer),
        sets("duplicate_window", strict_duration),
        Rule(("batch",), _batch),
    ]
)


def _limits(reader: Reader, target: Any, entry: Entry) -> None:
    reader.block(map_of(entry), _LIMITS, target.limits, "jetstream.limits.")


def _enabled(reader: Reader, target: Any, entry: Entry) -> None:
    target.enabled = boolean(reader, entry)


def _store_dir(reader: Reader, entry: Entry) -> str:
    if "jetstream.store_dir" in reader.options.places or "store_dir" in reader.options.places:
        raise Wrong("Duplicate 'store_dir' configuration")
    return string(reader, entry)


_TPM = table(
    [
        checked("keys_file", kind=string),
        checked("encryption_password", kind=string),
        checked("srk_password", kind=string),
        checked("pcr", kind=integer),
        checked("cipher", kind=one_of("chacha", "chachapoly", "aes")),
    ]
)

_JETSTREAM = table(
    [
        Rule(("enabled", "enable"), _enabled),
        sets("store_dir", _store_dir, "store", "storedir"),
        sets("max_memory", size, "max_memory_store", "max_mem_store", "max_mem"),
        sets("max_store", size, "max_file_store", "max_file"),
        sets("domain", string),
        sets("sync_interval", sync_interval, "sync"),
        # Encryption at rest: a store written in the clear is not what such a file asks for.
        refused("key", "ek", "encryption_key", kind=string),
        refused("prev_key", "prev_ek", "prev_encryption_key", kind=string),
        refused("tpm", kind=maps(_TPM)),
        later("cipher", kind=one_of("chacha", "chachapoly", "aes")),
        sets("extension_hint", string),
        sets("strict", boolean),
        sets("unique_tag", string),
        Rule(("limits",), _limits),
        sets("max_outstanding_catchup", size),
        sets("max_buffered_size", size),
        sets("max_buffered_msgs", integer),
        sets("request_queue_limit", integer),
        sets("info_queue_limit", integer),
        later("meta_compact", kind=positive(integer)),
        later("meta_compact_size", kind=positive(size)),
        later("meta_compact_sync", kind=boolean),
        later("max_concurrent_io", kind=between(4, 8192)),
    ]
)


def jetstream(reader: Reader, target: Options, entry: Entry) -> None:
    """Reads the block, or the one word in its place, into the options."""
    value = entry.node.value
    js = target.jetstream
    if isinstance(value, bool):
        js.enabled = value
    elif isinstance(value, str):
        word = value.lower()
        if word not in ("enabled", "enable", "disabled", "disable"):
            raise Wrong(f'expected enabled or disabled for "{entry.name}", got "{value}"')
        js.enabled = word.startswith("enable")
    elif isinstance(value, dict):
        js.enabled = True
        reader.block(value, _JETSTREAM, js, "jetstream.")
    else:
        raise mistyped(entry, "a map, a boolean or a string")


def top_store_dir(reader: Reader, target: Options, entry: Entry) -> None:
    """Reads the key that may stand outside the block."""
    target.jetstream.store_dir = _store_dir(reader, entry)
