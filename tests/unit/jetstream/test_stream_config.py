"""Streams: what is refused, what an update may do, and names."""

from __future__ import annotations

import itertools
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jscore_server.jetstream.errors import ApiError
from jscore_server.jetstream.models import Placement, Republish, StreamConfig, StreamSource, SubjectTransform
from jscore_server.jetstream.names import (
    SubjectIndex,
    TooManySubjects,
    account_hash,
    is_subset,
    is_valid_subject,
    new_group_name,
    overlapping_pair,
    peer_id,
    subjects_overlap,
)
from jscore_server.jetstream.stream_config import (
    JetStreamLimits,
    check_reservation,
    check_stream_config,
    check_stream_update,
    same_config,
    to_limits,
)
from jscore_server.protocol.duration import go_duration


def refused(number: int, config: StreamConfig, **options: object) -> str:
    with pytest.raises(ApiError) as caught:
        check_stream_config(config, **options)  # type: ignore[arg-type]
    assert caught.value.err_code == number
    return caught.value.description


@pytest.mark.parametrize(
    ("config", "feature"),
    [
        (StreamConfig(mirror=StreamSource("x")), "mirror"),
        (StreamConfig(sources=[StreamSource("x")]), "sources"),
        (StreamConfig(republish=Republish("a", "b")), "republish"),
        (StreamConfig(subject_transform=SubjectTransform("a", "b")), "subject_transform"),
        (StreamConfig(allow_msg_counter=True), "allow_msg_counter"),
        (StreamConfig(allow_atomic=True), "allow_atomic"),
        (StreamConfig(allow_batched=True), "allow_batched"),
        (StreamConfig(allow_msg_schedules=True), "allow_msg_schedules"),
        (StreamConfig(persist_mode="async"), "persist_mode async"),
    ],
)
def test_features_without_an_engine_are_refused_by_name(config: StreamConfig, feature: str) -> None:
    config.name = "S"
    assert refused(10052, config) == f"{feature} is not supported by this server yet"


def test_checking_leaves_the_request_alone_and_is_idempotent() -> None:
    asked = StreamConfig(name="S", metadata={"_nats.ver": "x", "k": "v"})
    once = check_stream_config(asked)
    assert asked == StreamConfig(name="S", metadata={"_nats.ver": "x", "k": "v"})
    assert once.metadata == {"k": "v", "_nats.req.level": "0"}
    assert check_stream_config(once) == once


def test_replicas_need_a_cluster() -> None:
    assert check_stream_config(StreamConfig(name="S", num_replicas=3), clustered=True).num_replicas == 3
    assert refused(10074, StreamConfig(name="S", num_replicas=3)).startswith("replicas > 1")


def test_placement_in_a_cluster() -> None:
    limits = JetStreamLimits(cluster_name="C")
    config = StreamConfig(name="S", placement=Placement(cluster="C"))
    assert check_stream_config(config, clustered=True, limits=limits).placement == Placement(cluster="C")
    config.placement = Placement(cluster="D")
    assert refused(10005, config, clustered=True, limits=limits) == "no suitable peers for placement"
    config.placement = Placement(tags=["a"])
    assert check_stream_config(config, clustered=True, limits=limits).placement == Placement(tags=["a"])


def test_account_limits() -> None:
    assert refused(10113, StreamConfig(name="S"), limits=JetStreamLimits(max_bytes_required=True))
    assert refused(10122, StreamConfig(name="S", max_bytes=5), limits=JetStreamLimits(storage_max_stream_bytes=4))
    window = JetStreamLimits(server_duplicate_window=10**9)
    assert check_stream_config(StreamConfig(name="S"), limits=window).duplicate_window == 10**9
    assert refused(10052, StreamConfig(name="S", duplicate_window=2 * 10**9), limits=window) == (
        "duplicates window can not be larger then server limit of 1s"
    )


@pytest.mark.parametrize(
    ("storage", "limits", "number"),
    [
        ("file", JetStreamLimits(server_max_storage=99), 10047),
        ("memory", JetStreamLimits(server_max_memory=99), 10028),
        ("file", JetStreamLimits(max_storage=99), 10047),
        ("memory", JetStreamLimits(max_memory=99), 10028),
    ],
)
def test_reservations(storage: str, limits: JetStreamLimits, number: int) -> None:
    fits, too_big = (check_stream_config(StreamConfig(name="S", storage=storage, max_bytes=n)) for n in (49, 50))
    check_reservation(fits, limits, reserved=50, server_reserved=50)
    with pytest.raises(ApiError) as caught:
        check_reservation(too_big, limits, reserved=50, server_reserved=50)
    assert caught.value.err_code == number
    check_reservation(too_big, limits, reserved=50, server_reserved=50, old=too_big)


def test_same_config_ignores_versioning_only() -> None:
    one = check_stream_config(StreamConfig(name="S", metadata={"k": "v"}))
    two = check_stream_config(StreamConfig(name="S", metadata={"k": "v", "_nats.level": "9"}))
    two.metadata["_nats.req.level"] = "3"
    assert same_config(one, two)
    assert not same_config(one, check_stream_config(StreamConfig(name="S", metadata={"k": "w"})))
    assert not same_config(one, check_stream_config(StreamConfig(name="S", metadata={"k": "v"}, max_msgs=1)))


def test_sealing_forces_what_a_sealed_stream_is() -> None:
    old = check_stream_config(StreamConfig(name="S", max_age=10**9, allow_rollup_hdrs=True))
    asked = check_stream_config(StreamConfig(name="S", max_age=10**9, allow_rollup_hdrs=True, sealed=True), update=True)
    new = check_stream_update(old, asked)
    assert (new.max_age, new.discard, new.deny_delete, new.deny_purge, new.allow_rollup_hdrs) == (
        0,
        "new",
        True,
        True,
        False,
    )


def test_limits_for_the_engine() -> None:
    limits = to_limits(check_stream_config(StreamConfig(name="S", retention="workqueue", discard="new", max_age=10**9)))
    assert limits["retention"] == 2
    assert limits["discard_new"] is True
    assert limits["max_age_ns"] == 10**9
    assert limits["max_msgs"] == -1
    assert limits["file_storage"] is True


# ---- names ----


def test_peer_ids_are_those_of_the_peer() -> None:
    assert peer_id("n0") == "6DVFpukC"
    assert peer_id("n1") == "fjFyEjc1"
    assert re.fullmatch("[0-9A-Za-z]{8}", account_hash("$G"))


def test_group_names() -> None:
    rng = random.Random(1)
    assert re.fullmatch("S-R3F-[0-9A-Za-z]{8}", new_group_name("S", 3, "file", rng))
    assert re.fullmatch("C-R1M-[0-9A-Za-z]{8}", new_group_name("C", 1, "memory", rng))


@pytest.mark.parametrize("subject", ["a", "a.b", "*", ">", "a.*.c", "a.>", "a*b.c>d", "$JS.x"])
def test_valid_subjects(subject: str) -> None:
    assert is_valid_subject(subject)


@pytest.mark.parametrize("subject", ["", ".", "a.", ".a", "a..b", ">.a", "a.>.b", "a b", "a\tb", "a\n"])
def test_invalid_subjects(subject: str) -> None:
    assert not is_valid_subject(subject)


@pytest.mark.parametrize(
    ("a", "b", "overlap", "subset"),
    [
        ("a", "a", True, True),
        ("a", "b", False, False),
        ("a.b", "a.*", True, True),
        ("a.*", "a.b", True, False),
        ("a.*", "*.b", True, False),
        ("a.>", "a", False, False),
        ("a", "a.>", False, False),
        ("a.b.c", "a.>", True, True),
        ("a.>", "*.>", True, True),
        ("a.*.c", "a.b", False, False),
        ("a.>", "a.*", True, False),
    ],
)
def test_overlap_and_subset(a: str, b: str, overlap: bool, subset: bool) -> None:
    assert subjects_overlap(a, b) is overlap
    assert subjects_overlap(b, a) is overlap
    assert is_subset(a, b) is subset


TOKENS = st.lists(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=4)
PATTERNS = st.builds(lambda tokens, tail: ".".join(tokens + ([">"] if tail else [])), TOKENS, st.booleans())


@given(PATTERNS, PATTERNS)
def test_overlap_means_a_common_subject(a: str, b: str) -> None:
    def matches(subject: tuple[str, ...], pattern: str) -> bool:
        return is_subset(".".join(subject), pattern)

    subjects = [s for n in range(1, 7) for s in itertools.product("ab", repeat=n)]
    assert subjects_overlap(a, b) == any(matches(s, a) and matches(s, b) for s in subjects)


@given(st.lists(PATTERNS, max_size=6))
def test_the_index_finds_what_pairs_find(patterns: list[str]) -> None:
    pairs = [(a, b) for a, b in itertools.combinations(patterns, 2) if subjects_overlap(a, b)]
    found = overlapping_pair(patterns)
    assert (found is not None) == bool(pairs)
    assert found is None or found in pairs


def test_many_subjects_are_compared_in_bounded_work() -> None:
    assert overlapping_pair([f"a.{i}" for i in range(20_000)]) is None
    index = SubjectIndex(max_steps=10_000)
    with pytest.raises(TooManySubjects):  # noqa: PT012 - which of them it is does not matter
        for i in range(5_000):
            index.add(f"x{i}.a.b" if i % 2 else f"*.c.y{i}")


def test_a_subject_of_very_many_tokens() -> None:
    assert check_stream_config(StreamConfig(name="S", subjects=["a." * 50_000 + "a"])).subjects


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0s"),
        (5, "5ns"),
        (1_500, "1.5µs"),
        (100_000_000, "100ms"),
        (10**9, "1s"),
        (1_500_000_000, "1.5s"),
        (120 * 10**9, "2m0s"),
        (3_600 * 10**9, "1h0m0s"),
        (-(10**9), "-1s"),
    ],
)
def test_durations_read_as_in_the_peer(ns: int, text: str) -> None:
    assert go_duration(ns) == text
