"""The cluster's `compression`: its words, its thresholds, and what no server starts with."""

from __future__ import annotations

import pytest
from jscore_server.config.lexer import ConfigError
from jscore_server.config.parser import parse
from jscore_server.config.schema import options_from
from jscore_server.config.validate import faults

MS = 1_000_000


def options(text):
    tree = parse(f"cluster {{ name: c, listen: '127.0.0.1:1', {text} }}", "x.conf", read=lambda path: "", environ={})
    found, notes = options_from(tree, "x.conf")
    assert notes == []
    return found


@pytest.mark.parametrize(
    ("text", "mode", "thresholds_ms"),
    [
        ("", "accept", []),
        ("compression: accept", "accept", []),
        ("compression: ''", "accept", []),
        ("compression {}", "accept", []),
        ("compression: off", "off", []),
        ("compression: false", "off", []),
        ("compression: disabled", "off", []),
        ("compression: on", "s2_fast", []),
        ("compression: true", "s2_fast", []),
        ("compression: S2_FAST", "s2_fast", []),
        ("compression: better", "s2_better", []),
        ("compression: best", "s2_best", []),
        ("compression: 'not supported'", "not supported", []),
        ("compression: auto", "s2_auto", [10, 50, 100]),
        ("compression { mode: s2_auto, rtt_thresholds: [] }", "s2_auto", [10, 50, 100]),
        ("compression { mode: s2_auto, rtt: [5ms] }", "s2_auto", [5]),
        ("compression { mode: s2_auto, thresholds: [0ms, 10ms, 0ms, 20ms] }", "s2_auto", [0, 10, 0, 20]),
        ("compression { mode: s2_fast, rtts: [10ms, 5ms] }", "s2_fast", []),
        ("compression { rtt_thresholds: [10ms] }", "accept", []),
    ],
)
def test_what_is_written_and_what_it_means(text, mode, thresholds_ms):
    found = options(text)
    assert found.cluster.compression.mode == mode
    assert found.cluster.compression.thresholds_ns == tuple(ms * MS for ms in thresholds_ms)
    assert faults(found) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("foo", 'unsupported compression mode "foo"'),
        ("s2_uncompressed", 'unsupported compression mode "s2_uncompressed"'),
        ("{ mode: foo }", 'unsupported compression mode "foo"'),
        ("{ mode: auto, rtt: [10ms, 5ms] }", "RTT threshold values [10ms 5ms] should be in ascending order"),
        ("{ mode: auto, rtt: [0ms, 0ms] }", 'compression mode "s2_auto" requires at least one RTT threshold'),
        (
            "{ mode: auto, rtt: [1ms, 2ms, 3ms, 4ms, 5ms] }",
            'compression mode "s2_auto" should have no more than 4 RTT thresholds: [1ms 2ms 3ms 4ms 5ms]',
        ),
    ],
)
def test_what_only_a_start_refuses(text, message):
    (fault,) = faults(options(f"compression: {text}"))
    assert fault.startswith("x.conf:1:")
    assert fault.endswith(message)


@pytest.mark.parametrize("text", ["1", "[s2_fast]", "{ mode: true }", "{ mode: auto, bar: 1 }", "{ rtt: [x] }"])
def test_what_is_no_setting_at_all(text):
    with pytest.raises(ConfigError):
        options(f"compression: {text}")
