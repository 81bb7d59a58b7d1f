"""Consumers: rules that need a cluster, limits or other consumers, and what the engine is given."""

from __future__ import annotations

import pytest
from jscore_server.jetstream.consumer_config import (
    check_consumer_config,
    check_consumer_update,
    check_workqueue,
    same_consumer_config,
    to_options,
)
from jscore_server.jetstream.errors import ApiError
from jscore_server.jetstream.models import ConsumerConfig, ConsumerLimits, StreamConfig
from jscore_server.jetstream.stream_config import NO_LIMITS, JetStreamLimits, check_stream_config

STREAM = check_stream_config(StreamConfig(name="S", subjects=["s.*"]))
R3 = check_stream_config(StreamConfig(name="R", num_replicas=3, retention="interest"), clustered=True)
QUEUE = check_stream_config(StreamConfig(name="Q", retention="workqueue"))


def refused(
    number: int,
    config: ConsumerConfig,
    stream: StreamConfig = STREAM,
    *,
    clustered: bool = False,
    pedantic: bool = False,
    limits: JetStreamLimits = NO_LIMITS,
) -> str:
    with pytest.raises(ApiError) as caught:
        check_consumer_config(config, stream, clustered=clustered, pedantic=pedantic, limits=limits)
    assert caught.value.err_code == number
    return caught.value.description


@pytest.mark.parametrize(
    ("config", "feature"),
    [
        (
            ConsumerConfig(ack_policy="flow_control", deliver_subject="d", flow_control=True, idle_heartbeat=10**9),
            "ack_policy flow_control",
        ),
        (ConsumerConfig(priority_policy="overflow", priority_groups=["a"]), "priority_policy"),
        (ConsumerConfig(pause_until="2030-01-01T00:00:00Z"), "pause_until"),
        (ConsumerConfig(deliver_subject="d", rate_limit_bps=1), "rate_limit_bps"),
        (ConsumerConfig(sample_freq="30%"), "sample_freq"),
        (ConsumerConfig(deliver_subject="d", direct=True), "direct"),
        (ConsumerConfig(sourcing=True), "sourcing"),
    ],
)
def test_features_without_an_engine_are_refused_by_name(config: ConsumerConfig, feature: str) -> None:
    assert refused(10052, config) == f"{feature} is not supported by this server yet"


def test_replicas() -> None:
    assert refused(10126, ConsumerConfig(num_replicas=5), R3, clustered=True)
    assert refused(10134, ConsumerConfig(num_replicas=1), R3, clustered=True)
    assert check_consumer_config(ConsumerConfig(), R3, clustered=True).num_replicas == 0


def test_limits_of_account_and_server() -> None:
    acked = ConsumerConfig(ack_policy="explicit")
    small = JetStreamLimits(max_ack_pending=20, server_max_ack_pending=10, server_max_request_batch=7)
    got = check_consumer_config(acked, STREAM, limits=small)
    assert got.max_ack_pending == 10
    assert got.max_batch == 7
    assert refused(10121, ConsumerConfig(ack_policy="explicit", max_ack_pending=11), limits=small).endswith(" 10")
    assert refused(10125, ConsumerConfig(max_batch=8), limits=small).endswith(" 7")
    assert refused(10157, ConsumerConfig(), limits=small, pedantic=True)


def test_checking_leaves_the_request_alone_and_is_idempotent() -> None:
    asked = ConsumerConfig(name="c", ack_policy="explicit", backoff=[1, 2])
    once = check_consumer_config(asked, STREAM)
    assert asked == ConsumerConfig(name="c", ack_policy="explicit", backoff=[1, 2])
    assert check_consumer_config(once, STREAM) == once
    assert same_consumer_config(once, check_consumer_config(asked, STREAM))
    assert not same_consumer_config(once, check_consumer_config(ConsumerConfig(name="c"), STREAM))


def test_a_name_may_be_left_to_the_server() -> None:
    assert check_consumer_config(ConsumerConfig(), STREAM).name == ""


@pytest.mark.parametrize(
    ("config", "others", "number"),
    [
        (ConsumerConfig(ack_policy="all"), [], 10098),
        (ConsumerConfig(ack_policy="explicit", deliver_policy="new"), [], 10101),
        (ConsumerConfig(ack_policy="explicit"), [ConsumerConfig(filter_subject="a")], 10099),
        (ConsumerConfig(ack_policy="explicit", filter_subject="a.b"), [ConsumerConfig()], 10100),
        (
            ConsumerConfig(ack_policy="explicit", filter_subjects=["x", "a.b"]),
            [ConsumerConfig(filter_subject="a.*")],
            10100,
        ),
    ],
)
def test_work_queue_rules(config: ConsumerConfig, others: list[ConsumerConfig], number: int) -> None:
    with pytest.raises(ApiError) as caught:
        check_workqueue(config, QUEUE, others)
    assert caught.value.err_code == number
    check_workqueue(config, STREAM, others)


def test_work_queue_consumers_beside_each_other() -> None:
    check_workqueue(ConsumerConfig(ack_policy="explicit"), QUEUE, [])
    check_workqueue(
        ConsumerConfig(ack_policy="explicit", filter_subject="a"), QUEUE, [ConsumerConfig(filter_subjects=["b", "c"])]
    )


def test_an_update_keeps_the_pause() -> None:
    old = ConsumerConfig(name="c", pause_until="2030-01-01T00:00:00Z")
    assert check_consumer_update(old, ConsumerConfig(name="c")).pause_until == "2030-01-01T00:00:00Z"


def test_options_for_the_engine() -> None:
    config = ConsumerConfig(
        name="c",
        deliver_policy="by_start_time",
        opt_start_time="1970-01-01T00:00:01Z",
        ack_policy="explicit",
        filter_subjects=["a", "b"],
        replay_policy="original",
        backoff=[5, 6],
    )
    options = to_options(check_consumer_config(config, STREAM))
    assert options["deliver_policy"] == 4
    assert options["ack_policy"] == 2
    assert options["opt_start_ns"] == 10**9
    assert options["ack_wait_ns"] == 5
    assert options["backoff_ns"] == [5, 6]
    assert options["filters"] == ["a", "b"]
    assert options["max_deliver"] == -1
    assert options["replay_original"] is True
    assert options["deliver_subject"] == ""


def test_stream_limits_fill_consumers() -> None:
    stream = check_stream_config(StreamConfig(name="L", consumer_limits=ConsumerLimits(10**10, 50)))
    got = check_consumer_config(ConsumerConfig(durable_name="d", ack_policy="explicit"), stream)
    assert (got.name, got.max_ack_pending, got.inactive_threshold) == ("d", 50, 10**10)
