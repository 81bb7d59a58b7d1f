"""The command line: flags, precedence, messages and exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import types

import pytest
from jscore_server import cli
from jscore_server.version import NATS_VERSION, VERSION


@pytest.fixture
def started(monkeypatch):
    """Options with which the daemon would have run."""
    seen = []
    daemon = types.ModuleType("jscore_server.daemon")

    def run(options, warnings=(), reread=None):
        seen.append(options)
        return 0

    daemon.run = run
    monkeypatch.setitem(sys.modules, "jscore_server.daemon", daemon)
    monkeypatch.setattr("jscore_server.daemon", daemon, raising=False)
    return seen


@pytest.fixture
def conf(tmp_path):
    def write(text):
        path = tmp_path / "x.conf"
        path.write_text(text)
        return str(path)

    return write


def test_both_spellings_of_every_flag(started):
    assert cli.main("-a h --port=5 -n s -js -sd /d -l /l -P /p -m 8222 -DV -T=false --no_advertise".split()) == 0
    (opts,) = started
    assert (opts.host, opts.port, opts.server_name, opts.http_port) == ("h", 5, "s", 8222)
    assert (opts.jetstream.enabled, opts.jetstream.store_dir) == (True, "/d")
    assert (opts.log_file, opts.pid_file, opts.logtime, opts.cluster.no_advertise) == ("/l", "/p", False, True)
    assert (opts.debug, opts.trace, opts.trace_verbose) == (True, True, False)


def test_flags_override_the_file(started, conf):
    path = conf("port: 1\nserver_name: f\ndebug: true\ncluster { name: c, listen: 1.2.3.4:6222 }")
    args = ["-c", path, "-p", "2", "-D=false", "-cluster", "nats://u:p@h:6333", "-routes", "nats://a:1, nats://b:2"]
    assert cli.main(args) == 0
    (opts,) = started
    assert (opts.port, opts.server_name, opts.debug) == (2, "f", False)
    assert (opts.cluster.name, opts.cluster.host, opts.cluster.port) == ("c", "h", 6333)
    assert (opts.cluster.authorization.user, opts.cluster.authorization.password) == ("u", "p")
    assert [str(url) for url in opts.cluster.routes] == ["nats://a:1", "nats://b:2"]


def test_an_empty_cluster_flag_turns_clustering_off(started, conf):
    assert cli.main(["-c", conf("cluster { port: 6222, routes: [nats://a:1] }"), "--cluster", ""]) == 0
    assert (started[0].cluster.port, started[0].cluster.routes) == (0, [])


@pytest.mark.parametrize(
    ("args", "code", "text", "usage"),
    [
        ("-foo", 0, "flag provided but not defined: -foo", True),
        ("--foo=1", 0, "flag provided but not defined: -foo", True),
        ("-p", 0, "flag needs an argument: -p", True),
        ("-p abc", 0, 'invalid value "abc" for flag -p: parse error', True),
        ("-D=maybe", 0, 'invalid boolean value "maybe" for -D: parse error', True),
        ("---p 1", 0, "bad flag syntax: ---p", True),
        ("bogus", 1, 'jscore-server: unrecognized command: "bogus"', False),
        ("-p 1 - x", 1, 'jscore-server: unrecognized command: "-"', False),
        ("-t", 1, "jscore-server: must specify [-c, --config] option to check configuration file syntax", False),
        ("-tls", 1, "jscore-server: TLS Server certificate must be present and valid", False),
        (
            "-routes nats://a:1",
            1,
            "jscore-server: solicited routes require cluster capabilities, e.g. --cluster",
            False,
        ),
        ("-sl bogus", 1, 'jscore-server: unknown signal "bogus"', False),
        ("-sl quit=abc", 1, "jscore-server: invalid pid: abc", False),
        ("-sl stop=1", 1, "jscore-server: invalid pid: 1", False),
    ],
)
def test_what_is_wrong_on_the_command_line(started, capsys, args, code, text, usage):
    assert cli.main(args.split()) == code
    out, err = capsys.readouterr()
    assert err == text + "\n"
    assert ("Usage:" in out) is usage
    assert started == []


def test_version_follows_the_programs_name(monkeypatch, capsys):
    for name in ("/usr/bin/nats-server", "/x/jscore-server", "__main__.py"):
        monkeypatch.setattr(sys, "argv", [name])
        for args in (["-v"], ["version"], ["--version"]):
            assert cli.main(args) == 0
    lines = capsys.readouterr().out.splitlines()
    ours = f"jscore-server: v{VERSION} (nats-server v{NATS_VERSION})"
    assert lines == [f"nats-server: v{NATS_VERSION}"] * 3 + [ours] * 6


def test_help_names_every_flag(capsys):
    assert cli.main(["-h"]) == 0
    text = capsys.readouterr().out
    assert [name for name in cli._flags() if f"-{name}" not in text] == []


def test_check_says_valid_and_starts_nothing(started, conf, capsys):
    path = conf("port: 4222\n")
    assert cli.main(["-t", "-c", path]) == 0
    digest = "sha256:797533ebd0dfba7d34a0f9337ecf147e442871f48ddfd07ed751575a5737267e"
    assert capsys.readouterr().err == f"jscore-server: configuration file {path} is valid ({digest})\n"
    assert started == []


def test_check_passes_with_the_loopback_warning_and_fails_with_the_peers(conf, capsys):
    assert cli.main(["-t", "-c", conf("cluster { listen: localhost:6222, routes: [nats://a:6222] }")]) == 0
    assert "cannot reach" in capsys.readouterr().err
    assert cli.main(["-t", "-c", conf("ping_interval: 30")]) == 1


def test_a_malformed_file_is_one_line_and_exit_1(started, conf, capsys):
    path = conf("port: 1\njetstream {\n  store_dir: 'x\n")
    assert cli.main(["-c", path]) == 1
    assert (
        capsys.readouterr().err
        == f"jscore-server: {path}:3:14: expected a closing ' for this one, got the end of the file\n"
    )
    assert cli.main(["-c", path + ".none"]) == 1
    assert capsys.readouterr().err == f"jscore-server: open {path}.none: no such file or directory\n"
    assert started == []


def test_a_signal_goes_to_the_process_of_a_pid_file(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    try:
        path = tmp_path / "pid"
        path.write_text(f"{child.pid}\n")
        assert cli.main(["-sl", f"term={path}"]) == 0
        assert child.wait(timeout=60) == -signal.SIGTERM
    finally:
        child.kill()
        child.communicate()


def test_no_such_process_is_an_error(capsys):
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait(timeout=60)
    assert cli.main(["-sl", f"quit={child.pid}"]) == 1
    assert os.strerror(3) in capsys.readouterr().err
