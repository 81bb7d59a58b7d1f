"""The engine alone, by pytest-benchmark: appends without and with a sync, and reads back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import jscore

BODY = b"x" * 128
BATCH = 1000


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
