"""The engine alone, by pytest-benchmark: appends without and with a sync, reads back, subject matching."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jscore_server.dataplane import Plane

import jscore

BODY = b"x" * 128
BATCH = 1000


def test_append(benchmark: Any, tmp_path: Path) -> None:
    """1000 records of 128 bytes framed and checksummed; waiting for the disk is not measured."""
    with jscore.Store(sync="never") as store, store.open(tmp_path / "log") as log:

        def settle() -> None:
            if log.last:
                log.submit()
                log.wait(log.last, 30)

        def batch() -> None:
            for _ in range(BATCH):
                log.append(jscore.KIND_MESSAGE, BODY, subject=b"bench.subject", term=1)

        benchmark.pedantic(batch, setup=settle, rounds=200, warmup_rounds=5)


@pytest.mark.parametrize("sync", ["never", "always"])
def test_append_a_batch_and_wait_for_it(benchmark: Any, tmp_path: Path, sync: str) -> None:
    """1000 records of 128 bytes, framed, checksummed and written; with `always` also on the disk."""
    with jscore.Store(sync=sync) as store, store.open(tmp_path / "log") as log:

        def batch() -> None:
            for _ in range(BATCH):
                last = log.append(jscore.KIND_MESSAGE, BODY, subject=b"bench.subject", term=1)
            log.submit()
            log.wait(last, 30)

        benchmark(batch)


def test_read_records_back(benchmark: Any, tmp_path: Path) -> None:
    """1000 records looked up by index and copied out."""
    with jscore.Store(sync="never") as store, store.open(tmp_path / "log") as log:
        for _ in range(BATCH):
            last = log.append(jscore.KIND_MESSAGE, BODY, subject=b"bench.subject", term=1)
        log.submit()
        log.wait(last, 30)

        def read() -> None:
            for index in range(log.first, log.last + 1):
                assert log.read(index).data == BODY

        benchmark(read)


def test_match_subjects(benchmark: Any) -> None:
    """1000 subjects against 10,000 subscriptions, a tenth of them wildcards."""
    plane = Plane()
    try:
        for n in range(9000):
            plane.subscribe("$G", f"orders.{n}.new", lambda _: None)
        for n in range(1000):
            plane.subscribe("$G", f"orders.{n}.*", lambda _: None)

        def match() -> None:
            for n in range(BATCH):
                assert plane.interest("$G", f"orders.{n}.new") == 2

        benchmark(match)
    finally:
        plane.close()
