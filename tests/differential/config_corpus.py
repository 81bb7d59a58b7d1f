# ruff: noqa: E501 - the tables read better with a block a line
"""Configurations, good and bad, for both checks (`-t`): ours and nats-server's must come to the same verdict.

`configs.txt` has those written by hand, one a line behind the verdict: `+` good, `-` bad, `!` where we differ on purpose,
for the reason above it. ⏎ is a line end, ⇥ a tab, ␍ a carriage return. The rest is made here: every key of every block
with values of every kind, and keys that are unknown; their verdicts stand in `verdicts.json`.
`python tests/differential/config_corpus.py` asks nats-server and writes all verdicts down.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

__all__ = ["ENVIRONMENT", "FILES", "cases", "environment", "lay_out", "peer_says"]

HERE = Path(__file__).resolve().parent
WRITTEN = HERE / "configs.txt"
VERDICTS = HERE / "verdicts.json"
SIGNS = {"⏎": "\n", "⇥": "\t", "␍": "\r"}

FILES = {
    "other.conf": "server_name: other\n",
    "deep/one.conf": "include two.conf\nmax_payload: 1k\n",
    "deep/two.conf": "port: 4333\n",
    "broken.conf": "port: [\n",
    "unknown.conf": "prot: 1\n",
    "defines.conf": "NAME: from_include\nport: 5\n",
    "uses.conf": "server_name: $OUTSIDE\n",
    "block.conf": "name: c\nport: 6222\n",
    "empty.conf": "",
    "loop.conf": "port: 1\n",
    "two words.conf": "server_name: two\n",
}
ENVIRONMENT = {
    "FROM_ENV": "5k", "BAD_ENV": "a b", "SELF": "$SELF", "WORDS": "'a b'", "LIST": "[a, b]", "MAP": "{ name: e }",
    "EMPTY": "", "ONE": "$TWO", "TWO": "7", "YES": "true", "COMMENTED": "5 # five", "TAIL": "1\nport: 9",
}  # fmt: skip

# ---- every key with values of every kind ----

VALUES = ["true", "'true'", "5", "5.5", "'5'", "'5s'", "abc", "[abc]", "[5\n]", "{ abc: 5 }", "{ }", "[ ]"]

BOOLEANS = """debug trace trace_verbose trace_headers logtime logtime_utc syslog no_fast_producer_stall no_header_support
    disable_sublist_cache no_sublist_cache proxy_protocol allow_non_tls no_system_account no_system no_sys_acc""".split()
STRINGS_OF = """host net client_advertise server_name log_file logfile remote_syslog pid_file pidfile ports_file_dir
    http_base_path no_auth_user system_account system default_sentinel store_dir storedir write_timeout""".split()
INTEGERS = """port max_traced_msg_len log_size_limit logfile_size_limit log_max_num logfile_max_num max_connections max_conn
    max_subscriptions max_subs max_subscription_tokens max_sub_tokens max_control_line max_payload max_pending
    max_closed_clients ping_max connect_error_reports reconnect_error_reports http_port monitor_port https_port prof_port
    prof_block_rate""".split()
OTHERS = """listen http https server_tags server_metadata ping_interval write_deadline lame_duck_duration
    lame_duck_grace_period tls ocsp ocsp_cache authorization accounts mappings maps operator operators root roots
    root_operator root_operators trusted trusted_keys resolver account_resolver accounts_resolver resolver_tls
    resolver_preload resolver_pinned_accounts default_js_domain cluster gateway leafnodes leaf websocket ws mqtt jetstream
    feature_flags proxies""".split()

EVERY_KEY = [f"{key}: {value}" for key in BOOLEANS + STRINGS_OF + INTEGERS + OTHERS for value in VALUES]

BLOCKS = {
    "cluster": """name listen host net port authorization permissions tls routes advertise cluster_advertise no_advertise
        connect_retries connect_backoff accounts compression pool_size ping_interval ping_max write_deadline
        write_timeout""",
    "gateway": """name listen host net port authorization tls advertise connect_retries connect_backoff
        reject_unknown_cluster reject_unknown gateways write_deadline write_timeout""",
    "leafnodes": """listen host net port authorization remotes reconnect reconnect_delay reconnect_interval dial_timeout
        tls advertise leafnode_advertise no_advertise min_version minimum_version compression isolate_leafnode_interest
        isolate write_deadline write_timeout""",
    "mqtt": """listen host net port tls authorization authentication no_auth_user ack_wait ackwait js_api_timeout
        api_timeout max_ack_pending max_pending max_inflight js_domain stream_replicas consumer_replicas
        consumer_memory_storage consumer_inactive_threshold consumer_auto_cleanup reject_qos2_publish
        downgrade_qos2_subscribe""",
    "websocket": """listen host net port advertise tls no_tls same_origin allowed_origins allowed_origin allow_origins
        allow_origin origins origin handshake_timeout compression compress authorization authentication jwt_cookie
        user_cookie pass_cookie token_cookie no_auth_user headers ping_interval""",
    "jetstream": """enabled enable disabled disable store_dir store storedir max_memory_store max_mem_store max_mem
        max_file_store max_file domain sync_interval sync key ek encryption_key prev_key prev_ek prev_encryption_key
        cipher extension_hint strict unique_tag limits tpm max_outstanding_catchup max_buffered_size max_buffered_msgs
        request_queue_limit info_queue_limit meta_compact meta_compact_size meta_compact_sync max_concurrent_io""",
    "tls": """cert_file key_file certs certificates ca_file verify verify_and_map verify_cert_and_check_known_urls
        insecure timeout cipher_suites allow_insecure_cipher_suites curve_preferences min_version pinned_certs
        connection_rate_limit handshake_first first immediate ocsp_peer""",
    "authorization": """user username pass password token timeout users default_permissions default_permission
        permissions auth_callout auth_hook proxy_required""",
    "ocsp": "mode url urls",
    "ocsp_cache": "type local_store preserve_revoked save_interval",
    "resolver": "type dir limit ttl interval timeout allow_delete hard_delete",
}  # fmt: skip

EVERY_BLOCK = [
    f"{block} {{ {key}: {value} }}" for block, keys in BLOCKS.items() for key in keys.split() for value in VALUES
]

NESTED = {
    "jetstream { limits { %s } }": "max_ack_pending max_ha_assets max_request_batch duplicate_window batch",
    "jetstream { limits { batch { %s } } }": "max_inflight_per_stream max_inflight_total max_msgs timeout",
    "jetstream { tpm { %s } }": "keys_file encryption_password srk_password pcr cipher",
    "cluster { compression { %s } }": "mode rtt_thresholds thresholds rtts rtt",
    "cluster { authorization { %s } }": "user username pass password token timeout users permissions proxy_required",
    "cluster { permissions { %s } }": "import export publish subscribe allow_responses",
    "gateway { authorization { %s } }": "user username pass password token timeout users permissions proxy_required",
    "gateway { gateways: [ { %s } ] }": "name url urls tls",
    "leafnodes { authorization { %s } }": "user username pass password nkey account timeout users proxy_required token",
    "leafnodes { authorization { users: [ { %s } ] } }": "user username pass password account proxy_required",
    "leafnodes { remotes: [ { %s } ] }": """url urls no_randomize dont_randomize account local credentials creds
        nkey seed tls hub deny_imports deny_import deny_exports deny_export ws_compression ws_compress websocket_compress
        websocket_compression ws_no_masking websocket_no_masking jetstream_cluster_migrate js_cluster_migrate
        isolate_leafnode_interest isolate request_isolation compression first_info_timeout dial_timeout disabled proxy
        ignore_discovered_servers""",
    "leafnodes { remotes: [ { url: 'ws://a', proxy { %s } } ] }": "url username password timeout",
    "mqtt { authorization { %s } }": "user username pass password token timeout users",
    "websocket { authorization { %s } }": "user username pass password token timeout users",
    "accounts { A { %s } }": """nkey users default_permissions imports exports mappings maps limits jetstream msg_trace
        trace_dest""",
    "accounts { A { limits { %s } } }": """max_connections max_conn max_subscriptions max_subs max_payload max_pay
        max_leafnodes max_leafs""",
    "accounts { A { jetstream { %s } } }": """max_memory max_mem mem memory max_store max_file max_disk store disk
        max_streams streams max_consumers consumers max_bytes_required max_stream_bytes max_bytes
        memory_max_stream_bytes mem_max_stream_bytes disk_max_stream_bytes store_max_stream_bytes max_ack_pending cluster_traffic""",
    "accounts { A { msg_trace { %s } } }": "dest sampling",
    "authorization { users: [ { user: u, %s } ] }": """pass password permissions permission authorization
        allowed_connection_types connection_types clients proxy_required nkey""",
    "authorization { users: [ { user: u, pass: p, permissions { %s } } ] }": """publish pub import subscribe sub export
        allow_responses publish_allow_responses""",
    "proxies { trusted: [ { %s } ] }": "key public_key",
}  # fmt: skip

EVERY_NESTED = [
    shape.replace("%s", f"{key}: {value}") for shape, keys in NESTED.items() for key in keys.split() for value in VALUES
]

UNKNOWN = [
    *("foo: 1", "foo { a: 1 }", "foo: [a]", "prot: 4222", "routes: []", "listn: 1", "foo: 1\nserver_name: a\nbar: 2"),
    *(f"{block} {{ foo: 1 }}" for block in BLOCKS),
    *(shape.replace("%s", "foo: 1") for shape in NESTED),
    *(f"{block} {{ A: b, foo: $A }}" for block in BLOCKS),
    *(f"X: 1\n{block} {{ foo: $X }}" for block in BLOCKS),
    "cluster { foo: 1 }\nbar: 2",
]

MADE = {"every key": EVERY_KEY, "every block": EVERY_BLOCK, "every nested block": EVERY_NESTED, "unknown keys": UNKNOWN}


def cases() -> list[tuple[str, str]]:
    """(verdict, text) of the whole corpus; the verdict is nats-server's, `+` or `-`, or `!`: see above."""
    found = []
    for line in WRITTEN.read_text(encoding="utf-8").split("\n"):
        if line[:2] in ("+ ", "- ", "! ", "? "):
            text = line[2:]
            for sign, meaning in SIGNS.items():
                text = text.replace(sign, meaning)
            found.append((line[0], text))
    verdicts = json.loads(VERDICTS.read_text()) if VERDICTS.exists() else {}
    for name, texts in MADE.items():
        found += zip(verdicts.get(name, "?" * len(texts)), texts, strict=True)
    return found


def lay_out(folder: Path) -> None:
    """Writes the files that the corpus includes or names."""
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def environment() -> dict[str, str]:
    """The environment in which the corpus is checked."""
    return {"PATH": os.environ.get("PATH", ""), "HOME": "/", **ENVIRONMENT}


def peer_says(peer: str, texts: list[str], folder: Path) -> list[tuple[bool, str]]:
    """Whether nats-server calls each text good, and what it prints; `folder` is laid out."""

    def ask(numbered: tuple[int, str]) -> tuple[bool, str]:
        number, text = numbered
        path = folder / f"peer{number}.conf"
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        done = subprocess.run(
            [peer, "-t", "-c", path.name], cwd=folder, env=environment(), capture_output=True, timeout=60, check=False
        )
        path.unlink()
        return done.returncode == 0, done.stderr.decode("utf-8", "replace")

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(ask, enumerate(texts)))


def _record(peer: str) -> None:
    known = cases()
    with tempfile.TemporaryDirectory() as folder:
        lay_out(Path(folder))
        said = peer_says(peer, [text for _, text in known], Path(folder))
    marks = iter("+" if good else "-" for good, _ in said)
    lines = []
    for line in WRITTEN.read_text(encoding="utf-8").split("\n"):
        if line[:2] in ("+ ", "- ", "! ", "? "):
            mark = next(marks)
            line = line if line[0] == "!" else mark + line[1:]
        lines.append(line)
    WRITTEN.write_text("\n".join(lines), encoding="utf-8")
    VERDICTS.write_text(
        json.dumps({name: "".join(next(marks) for _ in texts) for name, texts in MADE.items()}, indent=0)
    )


if __name__ == "__main__":
    found = shutil.which("nats-server") or sys.exit("nats-server is not on PATH")
    _record(found)
