"""jscore.aio: group commit across tasks, cancellation, failures, followers."""

from __future__ import annotations

import asyncio
import contextvars
import errno
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import jscore
import jscore.aio
from jscore import KillDisk, SimDisk


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await main()

    asyncio.run(bounded())


def test_many_tasks_share_syncs_and_keep_their_order(tmp_path):
    disk = KillDisk()  # real files, calls counted: on a disk that takes no time there is nothing to share

    async def main() -> None:
        async with await jscore.aio.open(tmp_path / "log", disk=disk) as log:
            before = disk.calls("s")
            seqs = await asyncio.gather(*(log.append(b"%d" % i) for i in range(1000)))
            assert seqs == list(range(1, 1001))
            assert log.durable == 1000
            assert disk.calls("s") - before < 500
            assert [bytes(m) for m in log.log] == [b"%d" % i for i in range(1000)]

    run(main)


def test_what_an_await_returned_survives_a_power_cut():
    disk = SimDisk(2)

    async def main() -> None:
        log = await jscore.aio.open("/log", disk=disk)
        await asyncio.gather(*(log.append(b"%d" % i) for i in range(50)))
        await log.extend([b"more"] * 10)
        await log.delete(3)
        log.log.abandon()

    run(main)
    disk.crash(0, True)
    with jscore.open("/log", disk=disk) as log:
        assert log.last == 60
        assert 3 not in log


def test_a_cancelled_append_stays_and_disturbs_nobody(tmp_path):
    async def main() -> None:
        async with await jscore.aio.open(tmp_path / "log") as log:
            tasks = [asyncio.create_task(log.append(b"%d" % i)) for i in range(100)]
            await asyncio.sleep(0)  # all are appended, none is durable before the loop looks again
            for task in tasks[::3]:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            for i, result in enumerate(results):
                if i % 3:
                    assert result == i + 1
                else:
                    assert isinstance(result, asyncio.CancelledError)
            await log.sync()
            assert [bytes(m) for m in log.log] == [b"%d" % i for i in range(100)]
            assert log.durable == 100

    run(main)


def test_sync_modes_and_the_sync_argument(tmp_path):
    async def main() -> None:
        async with await jscore.aio.open(tmp_path / "never", sync="never") as log:
            assert await log.append(b"1") == 1
            assert await log.append(b"2", sync=True) == 2
            await log.sync()
        async with await jscore.aio.open(tmp_path / "always", background=False) as log:
            assert await log.append(b"1", sync=False) == 1
            assert log.durable == 0
            await log.wait(1)
            assert log.durable == 1
            with pytest.raises(jscore.NotFound):
                await log.wait(2)
            assert bytes(await log.get(1)) == b"1"
            with pytest.raises(jscore.NotFound):
                await log.get(2)
            assert await log.extend([b"a", ("s", b"b")]) == range(2, 4)
            assert await log.purge("s") == 1

    run(main)


def test_a_failed_sync_rejects_everybody_who_waits():
    disk = SimDisk(3)

    async def main() -> None:
        log = await jscore.aio.open("/log", disk=disk)
        await log.append(b"kept")
        disk.fail("s", 1, errno.EIO)
        results = await asyncio.gather(*(log.append(b"lost") for _ in range(10)), return_exceptions=True)
        assert [type(result) for result in results] == [jscore.Failed] * 10
        with pytest.raises(jscore.Failed) as caught:
            await log.append(b"never")
        assert caught.value.reason is not None
        assert caught.value.reason.errno == errno.EIO
        with pytest.raises(jscore.Failed):
            await log.close()

    run(main)
    with jscore.open("/log", disk=disk) as log:
        assert bytes(log[1]) == b"kept"


def test_a_full_disk_is_told_and_what_was_taken_goes_out_when_there_is_space():
    disk = SimDisk(4)

    async def main() -> None:
        log = await jscore.aio.open("/log", disk=disk, segment_bytes=1 << 20)
        await log.append(b"before")
        disk.capacity(disk.used())
        with pytest.raises(jscore.Full):
            await log.extend([bytes(64 << 10)] * 100)
        last = log.log.last
        disk.capacity(1 << 40)
        while log.durable < last:
            try:
                await log.wait(last)
            except jscore.Full:
                await asyncio.sleep(0)
        assert await log.append(b"after") == last + 1
        await log.close()

    run(main)


def test_close_waits_and_refuses_what_comes_later(tmp_path):
    async def main() -> None:
        log = await jscore.aio.open(tmp_path / "log")
        task = asyncio.create_task(log.append(b"1"))
        await asyncio.sleep(0)
        await asyncio.gather(log.close(), log.close())
        assert await task == 1
        for call in (log.append(b""), log.extend([b""]), log.sync(), log.get(1)):
            with pytest.raises(ValueError, match="closed"):
                await call
        with jscore.open(tmp_path / "log") as again:
            assert again.last == 1

    run(main)


def test_a_cancelled_open_leaves_no_lock_behind(tmp_path):
    async def main() -> None:
        opening = asyncio.create_task(jscore.aio.open(tmp_path / "log"))
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        while True:  # a thread opens and closes it; nobody tells when
            try:
                log = await jscore.aio.open(tmp_path / "log")
                break
            except jscore.Locked:
                await asyncio.sleep(0.001)
        await log.close()

    run(main)


async def collect(follow: jscore.aio.AsyncFollow, n: int) -> list[int]:
    got: list[int] = []
    async for message in follow:
        got.append(message.seq)
        if len(got) == n:
            break
    return got


def test_followers_get_what_is_durable_as_it_comes(tmp_path):
    async def main() -> None:
        async with await jscore.aio.open(tmp_path / "log") as log:
            every = asyncio.create_task(collect(log.follow(after=0), 50))
            some = asyncio.create_task(collect(log.follow(after=0, subject="b"), 25))
            for i in range(50):
                await log.append(b"", "b" if i % 2 else "a")
            assert await every == list(range(1, 51))
            assert await some == list(range(2, 51, 2))
            assert await collect(log.follow(after=48, timeout=0), 10) == [49, 50]

    run(main)


def test_a_cancelled_wait_of_a_follower_loses_nothing(tmp_path):
    async def main() -> None:
        async with await jscore.aio.open(tmp_path / "log") as log:
            follow = log.follow(after=0)
            for expected in range(1, 20):
                waiting = asyncio.create_task(anext(follow))
                await asyncio.sleep(0)
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
                await log.append(b"")
                assert (await anext(follow)).seq == expected

    run(main)


def test_followers_end_when_the_log_closes(tmp_path):
    async def main() -> None:
        log = await jscore.aio.open(tmp_path / "log")
        task = asyncio.create_task(collect(log.follow(), 1))
        await asyncio.sleep(0)
        await log.close()
        assert await task == []

    run(main)


def test_a_reader_follows_a_writer_elsewhere(tmp_path):
    async def main() -> None:
        with jscore.open(tmp_path / "log") as writer:
            async with await jscore.aio.open(tmp_path / "log", "r") as log:
                task = asyncio.create_task(collect(log.follow(after=0), 5))
                for _ in range(5):
                    await asyncio.sleep(0)
                    writer.append(b"")
                assert await task == [1, 2, 3, 4, 5]

    run(main)


def test_a_follower_hears_of_what_its_reader_took_in_meanwhile(tmp_path):
    """Whoever refreshes the log first, its waiting thread or somebody else, the follower is told."""

    async def main() -> None:
        with jscore.open(tmp_path / "log") as writer:
            async with await jscore.aio.open(tmp_path / "log", "r") as log:
                task = asyncio.create_task(collect(log.follow(after=0), 1))
                for _ in range(3):  # its turns until it waits
                    await asyncio.sleep(0)
                assert log._remote is not None
                writer.append(b"")
                log.log.refresh()
                assert log.durable == 1
                assert await task == [1]

    run(main)


def test_a_task_resumed_by_a_sync_may_cancel_one_that_the_same_sync_serves(tmp_path):
    """Tasks are resumed one by one where the log hears of the sync."""
    name: contextvars.ContextVar[int] = contextvars.ContextVar("name")
    seen: list[tuple[int, int, asyncio.Task[Any] | None]] = []

    async def main() -> None:
        log = await jscore.aio.open(tmp_path / "log")

        async def work(number: int) -> None:
            name.set(number)
            await log.append(b"%d" % number)
            seen.append((number, name.get(), asyncio.current_task()))
            if number == 1:
                tasks[2].cancel()
            await log.append(b"again")

        tasks = [asyncio.create_task(work(number)) for number in range(5)]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [number for number, _, _ in seen] == [0, 1, 3, 4]
        assert all(number == own and task is tasks[number] for number, own, task in seen)
        assert isinstance(results[2], asyncio.CancelledError)
        assert [results[i] for i in (0, 1, 3, 4)] == [None] * 4
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await log.append(b"last")
        await log.close()
        with jscore.open(tmp_path / "log", "r") as reader:
            assert [bytes(m) for m in reader] == [b"0", b"1", b"2", b"3", b"4"] + [b"again"] * 4 + [b"last"]

    run(main)


def test_a_task_that_ends_the_loop_costs_the_others_nothing(tmp_path):
    loop = asyncio.new_event_loop()
    done: list[int] = []

    async def work(log: jscore.aio.AsyncLog, number: int) -> None:
        await log.append(b"%d" % number)
        if number == 1:
            raise KeyboardInterrupt
        done.append(number)

    log = loop.run_until_complete(jscore.aio.open(tmp_path / "log"))
    tasks = [loop.create_task(work(log, number)) for number in range(4)]
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(asyncio.wait(tasks))
    loop.run_until_complete(asyncio.wait(tasks, timeout=30))
    assert done == [0, 2, 3]
    assert isinstance(tasks[1].exception(), KeyboardInterrupt)
    loop.run_until_complete(log.close())
    loop.close()
