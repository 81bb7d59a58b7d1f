"""The rules for fork and threads: a child never touches its parent's log; any thread may make any call."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable

import pytest

import jscore


def in_child(check: Callable[[], None]) -> None:
    """Runs check in a forked child; its failure is ours."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            check()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_in_a_forked_child_every_call_raises_and_the_parent_goes_on(tmp_path):
    log = jscore.open(tmp_path / "log")
    log.extend([("a", b"%d" % i) for i in range(300)])
    log.append(b"not yet submitted", sync=False)
    walk, selection, view, held = iter(log), log.subject("a"), log[1:10], log[5]
    follow = log.follow(after=0)
    next(walk)

    def child() -> None:
        calls = [
            *(lambda: log.append(b"child"), lambda: log.extend([b"child"]), lambda: log.delete(1), log.purge),
            *(lambda: log[1], lambda: list(log), lambda: len(log), lambda: 1 in log, lambda: list(view)),
            *(lambda: log.first, lambda: log.last, lambda: log.durable, lambda: log.error, log.sync, log.submit),
            *(log.stats, log.damage, log.verify, log.maintain, log.close, log.abandon, log.fileno, log.poll),
            *(lambda: next(walk), selection.last, selection.count, lambda: list(selection), lambda: next(follow)),
            *(lambda: log.set_limits(max_bytes=1), lambda: log.at(0), log.refresh, lambda: log.wait(1)),
            lambda: list(log.columns("seq")),
        ]
        for call in calls:
            with pytest.raises(jscore.Forked) as caught:
                call()
            assert caught.value.path == str(tmp_path / "log")
        assert bytes(held) == b"4"  # memory is the child's own
        assert "forked" in repr(log)
        with pytest.raises(jscore.Locked):  # and it may open its own logs, but not one in use
            jscore.open(tmp_path / "log")
        with jscore.open(tmp_path / "own") as own:
            own.append(b"fine")

    with log:
        in_child(child)
        assert log.append(b"parent") == 302
        assert len(log) == 302
    with jscore.open(tmp_path / "log") as log:
        assert [bytes(m) for m in log[301:]] == [b"not yet submitted", b"parent"]
        assert log.verify() == []


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_keeps_no_lock_of_its_parent(tmp_path):
    log = jscore.open(tmp_path / "log")
    ready, go = os.pipe(), os.pipe()

    def child() -> None:
        os.write(ready[1], b"1")
        os.read(go[0], 1)

    pid = os.fork()
    if pid == 0:
        try:
            child()
        finally:
            os._exit(0)
    os.read(ready[0], 1)
    log.close()
    jscore.open(tmp_path / "log").close()
    os.write(go[1], b"1")
    os.waitpid(pid, 0)
    for fd in (*ready, *go):
        os.close(fd)


def test_leaving_a_with_block_in_the_child_does_nothing(tmp_path):
    with jscore.open(tmp_path / "log") as log:
        log.append(b"x", sync=False)

        def child() -> None:
            log.__exit__(None, None, None)

        in_child(child)
    with jscore.open(tmp_path / "log") as log:
        assert log.last == 1


def together(*jobs: Callable[[], None]) -> None:
    failed: list[BaseException] = []

    def guarded(job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as err:
            failed.append(err)

    threads = [threading.Thread(target=guarded, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    if failed:
        raise failed[0]


def test_threads_append_read_delete_and_care_at_once(tmp_path):
    with jscore.open(tmp_path / "log", segment_bytes=64 << 10) as log:
        writers = 4
        writing = writers
        own: dict[int, list[int]] = {n: [] for n in range(writers)}

        def write(n: int) -> None:
            nonlocal writing
            for i in range(300):
                if i % 50 == 0:
                    got = log.extend([(f"w.{n}", b"%d" % i)] * 5, sync=False)
                    assert [bytes(m) for m in log[got.start : got.stop]] == [b"%d" % i] * 5
                    own[n].extend(got)
                else:
                    own[n].append(log.append(b"%d" % i * 50, f"w.{n}", sync=i % 20 == 0))
            writing -= 1

        def read() -> None:
            while writing:
                last = 0
                for message in log:
                    assert message.seq > last
                    last = message.seq
                    assert message.subject[:2] == "w."

        def look() -> None:
            while writing:
                assert sum(info.count for info in log.subject("w.*").subjects()) <= log.last
                assert log.subject("w.1").count() <= log.last
                log.stats()

        def care() -> None:
            while writing:
                log.maintain()
                log.damage()

        together(*(lambda n=n: write(n) for n in range(writers)), read, read, look, care)
        assert sorted(seq for seqs in own.values() for seq in seqs) == list(range(1, log.last + 1))
        for n, seqs in own.items():
            assert seqs == sorted(seqs) == [m.seq for m in log.subject(f"w.{n}")]
        assert log.verify() == []


def test_closing_ends_the_waits_of_other_threads(tmp_path):
    log = jscore.open(tmp_path / "log")
    started = threading.Barrier(3)

    def follow() -> None:
        waiting = log.follow()
        started.wait()
        with pytest.raises(ValueError, match="closed"):
            next(waiting)

    def wait() -> None:
        started.wait()
        with pytest.raises(ValueError, match="closed"):
            log.wait_beyond(1000)

    def close() -> None:
        started.wait()
        log.close()

    together(follow, wait, close)


def test_a_log_is_dropped_by_whichever_thread_was_last(tmp_path):
    log = jscore.open(tmp_path / "log")
    log.append(b"kept")
    held = [log[1].data]
    log.close()
    del log
    together(lambda: held.clear())
    assert held == []
