"""What each account may use of JetStream, by the configuration."""

from __future__ import annotations

import msgspec

from jscore_server.config.options import Options
from jscore_server.config.users import GLOBAL_ACCOUNT
from jscore_server.jetstream.stream_config import JetStreamLimits

NANOSECOND = 1_000_000_000


def entitled(options: Options) -> dict[str, JetStreamLimits | None]:
    """Which accounts have JetStream, and what they may use: the global one while no other is named."""
    js = options.jetstream
    of_server = JetStreamLimits(
        server_max_memory=-1 if js.max_memory is None else js.max_memory,
        server_max_storage=-1 if js.max_store is None else js.max_store,
        server_max_ack_pending=js.limits.max_ack_pending or -1,
        server_duplicate_window=int(js.limits.duplicate_window * NANOSECOND),
        server_max_request_batch=max(0, js.limits.max_request_batch),
    )
    named = [account for name, account in options.accounts.items() if name != options.system_account]
    found: dict[str, JetStreamLimits | None] = {GLOBAL_ACCOUNT: None if named else of_server}
    for account in named:
        own = account.jetstream
        found[account.name] = (
            None
            if own is None
            else msgspec.structs.replace(
                of_server,
                max_memory=own.max_memory,
                max_storage=own.max_store,
                max_streams=own.max_streams,
                max_consumers=own.max_consumers,
                max_ack_pending=own.max_ack_pending,
                memory_max_stream_bytes=own.memory_max_stream_bytes,
                storage_max_stream_bytes=own.disk_max_stream_bytes,
                max_bytes_required=own.max_bytes_required,
            )
        )
    return found
