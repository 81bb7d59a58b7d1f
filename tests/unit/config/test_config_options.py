"""From a file to options: kinds, defaults, what is refused, what is only warned of."""

from __future__ import annotations

from pathlib import Path

import pytest
from jscore_server.config.lexer import ConfigError
from jscore_server.config.load import load
from jscore_server.config.options import Options, Url
from jscore_server.config.parser import parse
from jscore_server.config.schema import duration_seconds, options_from, parse_listen, parse_route
from jscore_server.config.validate import faults, warnings

ACCOUNT_KEY = "AC5GRL36RQV7MJ2GT6WQSCKDKJKYTK4T2LGLWJ2SEJKRDHFOQQWGGFQL"
CONF = Path(__file__).resolve().parents[3] / "server" / "conf"


def read(text):
    tree = parse(text, "x.conf", read=lambda path: "", environ={})
    return options_from(tree, "x.conf")


def options(text):
    return read(text)[0]


def errors(text):
    with pytest.raises(ConfigError) as caught:
        options(text)
    return list(caught.value.errors)


@pytest.mark.parametrize(("number", "others"), [(1, "bc"), (2, "ac"), (3, "ab")])
def test_the_three_host_files(number, others):
    path = str(CONF / f"server{number}.conf")
    opts, notes = load(path, {})
    assert notes == []
    assert (opts.server_name, opts.host, opts.port) == (f"server{number}", "0.0.0.0", 4222)
    assert (opts.jetstream.enabled, opts.jetstream.store_dir) == (True, "/nats/storage")
    assert opts.jetstream.sync_interval == "always"
    assert (opts.cluster.name, opts.cluster.host, opts.cluster.port) == ("c1", "localhost", 6222)
    assert opts.cluster.routes == [Url(f"host_{letter}", 6222) for letter in others]
    assert faults(opts) == []
    assert [note.text for note in warnings(opts)] == [
        f"{path}:10: cluster listens on localhost:6222, which the routes' hosts cannot reach: "
        'change it to "listen: 0.0.0.0:6222"'
    ]


@pytest.mark.parametrize(
    ("listen", "routes", "warned"),
    [
        ("0.0.0.0:6222", "nats://a:6222", False),
        ("localhost:6222", "nats://127.0.0.1:6223, nats://localhost:6224", False),
        ("127.0.0.2:6222", "nats://localhost:6223, nats://10.0.0.1:6222", True),
        ('"[::1]:6222"', "nats://b:6222", True),
        ("localhost:6222", "", False),
        ("6222", "nats://a:1", False),
        ("0", "nats://a:1", True),
    ],
)
def test_a_cluster_is_warned_of_only_when_its_listen_keeps_others_out(listen, routes, warned):
    assert bool(warnings(options(f"cluster {{ listen: {listen}, routes: [ {routes} ] }}"))) is warned


def test_options_of_every_block():
    opts = options(
        """
        listen: "[::1]:-1", server_name: s, server_tags: [A, "b c "], server_metadata { k: v }
        client_advertise: "x:1"; trace_verbose: yes; logfile: /l; pidfile: /p; max_conn: 5
        max_payload: 2MB; max_control_line: 8k; max_pending: 1GB; ping_interval: "1m30s"; ping_max: 3
        write_deadline: 250ms; lame_duck_duration: 1h; monitor_port: 8222; feature_flags { f: on }
        jetstream { store_dir /s, max_mem: 1G, max_file_store: "2T", domain: d, sync: 5s, strict: no, unique_tag: "az:"
          limits { max_ack_pending: 7, duplicate_window: "1m", batch { timeout: 2s } } }
        cluster { name: c, host: h, port: 6000, authorization { user: u, pass: p, timeout: 0.5 }
          routes: ["nats://u:p%40@r:1", "r2"], no_advertise: true, connect_retries: 4, pool_size: -1
          ping_interval: 10s, udp_hints: true }
        """
    )
    assert (opts.host, opts.port, opts.server_tags, opts.server_metadata) == ("::1", -1, ["a", "b c"], {"k": "v"})
    assert (opts.trace, opts.trace_verbose, opts.log_file, opts.pid_file) == (True, True, "/l", "/p")
    assert (opts.max_connections, opts.max_payload, opts.max_control_line) == (5, 2 << 20, 8000)
    assert (opts.max_pending, opts.ping_interval, opts.write_deadline) == (1 << 30, 90.0, 0.25)
    assert (opts.lame_duck_duration, opts.http_port, opts.feature_flags) == (3600.0, 8222, {"f": True})
    js = opts.jetstream
    assert (js.enabled, js.store_dir, js.max_memory, js.max_store) == (True, "/s", 10**9, 2 << 40)
    assert (js.domain, js.sync_interval, js.strict, js.unique_tag) == ("d", 5.0, False, "az:")
    assert (js.limits.max_ack_pending, js.limits.duplicate_window, js.limits.batch_timeout) == (7, 60.0, 2.0)
    cluster = opts.cluster
    assert (cluster.host, cluster.port, cluster.authorization.user, cluster.authorization.timeout) == (
        "h",
        6000,
        "u",
        0.5,
    )
    assert cluster.routes == [Url("r", 1, "u", "p@", "nats"), Url("r2", 6222)]
    assert (cluster.no_advertise, cluster.connect_retries, cluster.pool_size, cluster.ping_interval) == (
        True,
        4,
        -1,
        10.0,
    )
    assert cluster.udp_hints


def test_keys_are_known_in_any_case():
    assert options("PORT: 5\nJetStream { Store_Dir: /x }").port == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n  foo: 1", 'x.conf:2:3: unknown field "foo"'),
        ("jetstream {\n foo: 1 }", 'x.conf:2:2: unknown field "foo"'),
        ("cluster { authorization { foo: 1 } }", 'x.conf:1:27: unknown field "foo"'),
        ('"a\nb": 1', 'x.conf:1:1: unknown field "a\\nb"'),
        ('port: "x"', 'x.conf:1:1: expected an integer for "port", got a string'),
        ("debug: 1", 'x.conf:1:1: expected a boolean for "debug", got an integer'),
        ("server_name: 5", 'x.conf:1:1: expected a string for "server_name", got an integer'),
        ("server_name { }", 'x.conf:1:1: expected a string for "server_name", got a map'),
        ("max_payload: 3000000000", 'x.conf:1:1: expected at most 2147483647 for "max_payload", got 3000000000'),
        ("prot: 5", 'x.conf:1:1: unknown field "prot", did you mean "port"?'),
        ("cluster { routs: [] }", 'x.conf:1:11: unknown field "routs", did you mean "routes"?'),
        ("listen: abc", 'x.conf:1:1: could not parse address string "abc"'),
        ("listen: a:b", 'x.conf:1:1: could not parse port "b"'),
        ("cluster: 1", 'x.conf:1:1: expected a map for "cluster", got an integer'),
        ("jetstream: maybe", 'x.conf:1:1: expected enabled or disabled for "jetstream", got "maybe"'),
        ("ping_interval: x", 'x.conf:1:1: expected a duration such as "2m" for "ping_interval", got "x"'),
        ("jetstream { store_dir: a }\nstore_dir: b", "x.conf:2:1: Duplicate 'store_dir' configuration"),
    ],
)
def test_fault_with_its_place(text, message):
    assert errors(text) == [message]


def test_all_faults_are_collected():
    assert len(errors("foo: 1\nport: x\ncluster { routes: [1, 'nats://h:x'], bar: 2 }")) == 5


@pytest.mark.parametrize(
    "text",
    [
        f"authorization {{ auth_callout {{ issuer: {ACCOUNT_KEY}, auth_users: [a] }} }}",
        "accounts { A { exports: [{ stream: a }] } }",
        "resolver: MEMORY",
        "gateway { name: a }",
        "leafnodes { port: 7422 }",
        "mqtt { port: 1883 }",
        "jetstream { key: k }",
    ],
)
def test_a_file_that_asks_for_protection_does_not_start_without_it(text):
    (message,) = options(text).refusals
    assert message.startswith("x.conf:1:")
    assert message.endswith("is not supported yet")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("port: 70000", 'x.conf:1:1: expected -1 to 65535 for "port", got 70000'),
        ("listen: 'a:70000'", 'x.conf:1:1: expected a port from -1 to 65535 for "listen", got 70000'),
        ("max_payload: -1", 'x.conf:1:1: expected 0 or more for "max_payload", got -1'),
    ],
)
def test_what_only_a_start_refuses(text, message):
    assert options(text).refusals == [message]


@pytest.mark.parametrize("text", ["prof_port: 1"])
def test_a_harmless_key_is_a_warning(text):
    _, notes = read(text)
    assert [note.strict for note in notes] == [False]
    assert notes[0].text.startswith("x.conf:1:")
    assert "no effect" in notes[0].text


@pytest.mark.parametrize(
    "text", ["authorization { }", "accounts { }", 'system_account: "$SYS"', "allow_non_tls: false"]
)
def test_what_asks_for_nothing_is_silent(text):
    assert read(text)[1] == []


def test_a_passwords_text_is_in_no_message():
    text = "\n".join(errors("cluster { routes: ['nats://u:secret@h:x'] }"))
    assert "secret" not in text
    assert "secret" not in repr(
        options("cluster { authorization { user: u, pass: secret }, routes: ['nats://u:secret@h'] }")
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30.0), ("2m", 120.0), ('"2m"', 120.0), ("1h30m", 5400.0)],
)
def test_a_bare_number_is_seconds_and_2m_means_minutes(text, seconds):
    opts, notes = read(f"ping_interval: {text}")
    assert opts.ping_interval == seconds
    assert [note.strict for note in notes] == ([True] if text in ("30", "2m") else [])


@pytest.mark.parametrize(("text", "value"), [("always", "always"), ('"2m"', 120.0), ("2m", 120.0)])
def test_sync_interval(text, value):
    assert options(f"jetstream {{ sync_interval: {text} }}").jetstream.sync_interval == value


@pytest.mark.parametrize("text", ["", "5", "x", "1", "2m ", "1.5", "h", "-", "9999999h"])
def test_not_a_duration(text):
    assert duration_seconds(text) is None


def test_durations():
    assert [duration_seconds(t) for t in ("0", "1.5h", "300ms", "-1s", ".5s", "1us")] == [
        0.0,
        5400.0,
        0.3,
        -1.0,
        0.5,
        1e-6,
    ]


@pytest.mark.parametrize("text", ["", "4222", "::1:4222", "a:", "[a:1"])
def test_not_an_address(text):
    with pytest.raises(ValueError, match=r"address|port"):
        parse_listen(text)


@pytest.mark.parametrize(
    "text", ["", "nats://", "nats://:1", "nats://h:x", "nats://h i:1", "nats://::1:5", "nats://h:70000"]
)
def test_not_a_route(text):
    with pytest.raises(ValueError, match="route"):
        parse_route(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "jetstream: true\ncluster { name: c, port: 6222 }",
            "x.conf:2:1: jetstream cluster requires `server_name` to be set",
        ),
        (
            "jetstream: true\nserver_name: a\ncluster { port: 6222 }",
            "x.conf:3:1: jetstream cluster requires `cluster.name` to be set",
        ),
        ("max_pending: 5", "x.conf:1:1: max_payload (1048576) cannot be higher than max_pending (5)"),
        ("lame_duck_grace_period: '3m'", "x.conf:1:1: lame duck grace period (180s) should be strictly lower"),
        ("jetstream { sync_interval: '0s' }", "x.conf:1:13: expected"),
        ("jetstream { domain: a.b }", "x.conf:1:13: expected a domain"),
    ],
)
def test_options_that_contradict_each_other(text, message):
    (found,) = faults(options(text))
    assert message in found


def test_an_empty_file_is_a_warning():
    assert [(note.text, note.strict) for note in read("# nothing")[1]] == [
        ("x.conf: config has no values or is empty", True)
    ]


def test_defaults_are_valid():
    assert faults(Options()) == []
    assert warnings(Options()) == []
