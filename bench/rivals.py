"""Everybody of a race behind one small interface, ourselves among them, each used as its own manual would have it.

Loops over messages live in here, so that every store runs its natural inner loop and no wrapper is measured. Keys of
the rivals are made beforehand by `keys`; ours takes the number itself.
"""

from __future__ import annotations

import os
import sqlite3
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import starmap
from pathlib import Path
from typing import Any, ClassVar

import lmdb
from rocksdict import BlockBasedOptions, Cache, DBCompressionType, Options, Rdict, WriteBatch, WriteOptions

import jscore

CACHE_BYTES = 64 << 20  # the budget of each store that asks for one
MAP_BYTES = 1 << 36  # LMDB's map: address space, not memory


def pack(seq: int) -> bytes:
    """Big-endian, so that byte order is the order of numbers."""
    return struct.pack(">Q", seq)


def afresh(name: str) -> str:
    """A copy. Keys that `encode` makes lie in memory in the order of their use; those of every store shall."""
    return name.encode().decode()


class Store:
    """A directory with messages 1, 2, 3 … Appended by one thread, unsynced unless `durable`."""

    name: ClassVar[str]
    unsynced: ClassVar[str]  # what an unsynced append has promised when it returns
    synced: ClassVar[str]

    def __init__(self, home: Path, *, durable: bool = False) -> None:
        self.home, self.durable, self.last = home, durable, 0

    def keys(self, seqs: Iterable[int]) -> list[Any]:
        """Numbers as this store looks them up."""
        return list(map(pack, seqs))

    def subject_keys(self, subjects: Iterable[str]) -> list[Any]:
        return [subject.encode() for subject in subjects]

    def next_keys(self, n: int) -> list[Any]:
        self.last += n
        return self.keys(range(self.last - n + 1, self.last + 1))

    def appender(self, bodies: Sequence[bytes]) -> Callable[[], None]:
        """Appends each body by itself when called."""
        raise NotImplementedError

    def extender(self, batches: Sequence[Sequence[bytes]]) -> Callable[[], None]:
        """Appends each batch as one when called."""
        raise NotImplementedError

    def put_subjects(self, subjects: Sequence[str], bodies: Sequence[bytes]) -> None:
        """Makes a store of the newest body by subject; `subjects` ascend."""
        raise NotImplementedError

    def scan(self) -> Iterator[Any]:
        """Every body in order, as buffers."""
        raise NotImplementedError

    def get(self) -> Callable[[Any], Any]:
        """A function from a key to a buffer."""
        raise NotImplementedError

    def last_of(self) -> Callable[[Any], Any]:
        """A function from a subject's key to the buffer of its newest body."""
        return self.get()

    def hand_over(self) -> None:
        """Returns when the operating system has everything; nothing to do for whoever writes at each append."""

    def sync(self) -> None:
        """Returns when the disk has everything."""
        raise NotImplementedError

    def settle(self) -> None:
        """Brings what was written into the shape in which it is read best, before a race of readers."""

    def close(self) -> None:
        raise NotImplementedError


class Jscore(Store):
    name = "jscore"
    unsynced = "framed, checksummed, indexed; with the OS within 5 ms (counted: until all of it is)"
    synced = "fdatasync before return; group commit"
    options: ClassVar[dict[str, Any]] = {}

    def __init__(self, home: Path, *, durable: bool = False, **options: Any) -> None:
        super().__init__(home, durable=durable)
        self.log = jscore.open(
            home, sync="always" if durable else "never", memory=CACHE_BYTES, **{**self.options, **options}
        )

    def keys(self, seqs: Iterable[int]) -> list[int]:
        return list(seqs)

    def subject_keys(self, subjects: Iterable[str]) -> list[str]:
        return list(map(afresh, subjects))

    def appender(self, bodies: Sequence[bytes]) -> Callable[[], None]:
        append = self.log.append

        def run() -> None:
            for body in bodies:
                append(body)

        return run

    def extender(self, batches: Sequence[Sequence[bytes]]) -> Callable[[], None]:
        extend = self.log.extend

        def run() -> None:
            for batch in batches:
                extend(batch)

        return run

    def put_subjects(self, subjects: Sequence[str], bodies: Sequence[bytes]) -> None:
        for at in range(0, len(subjects), 10_000):
            self.log.extend(list(zip(subjects[at : at + 10_000], bodies[at : at + 10_000], strict=True)))

    def scan(self) -> Iterator[Any]:
        return iter(self.log)

    def get(self) -> Callable[[int], Any]:
        return self.log.__getitem__

    def last_of(self) -> Callable[[str], Any]:
        subject = self.log.subject
        return lambda name: subject(name).last()

    def hand_over(self) -> None:
        self.log.wait(self.log.last)  # written; sync() would sync, which nobody else does

    def sync(self) -> None:
        self.log.sync()

    def settle(self) -> None:
        self.log.compact()

    def close(self) -> None:
        self.log.close()


class Lmdb(Store):
    name = "lmdb"
    unsynced = "pages with the OS at each commit; a power cut may cost the whole file"
    synced = "fdatasync at each commit; writers one after the other"

    def __init__(self, home: Path, *, durable: bool = False) -> None:
        super().__init__(home, durable=durable)
        self.env = lmdb.open(
            str(home), map_size=MAP_BYTES, sync=durable, metasync=durable, writemap=False, meminit=False
        )
        self.reading: Any = None

    def appender(self, bodies: Sequence[bytes]) -> Callable[[], None]:
        begin, keys = self.env.begin, self.next_keys(len(bodies))

        def run() -> None:
            for key, body in zip(keys, bodies, strict=True):
                with begin(write=True) as txn:
                    txn.put(key, body, append=not self.durable)  # concurrent writers come in any order

        return run

    def extender(self, batches: Sequence[Sequence[bytes]]) -> Callable[[], None]:
        begin, keys = self.env.begin, [self.next_keys(len(batch)) for batch in batches]

        def run() -> None:
            for some, batch in zip(keys, batches, strict=True):
                with begin(write=True) as txn:
                    txn.cursor().putmulti(list(zip(some, batch, strict=True)), append=True)

        return run

    def put_subjects(self, subjects: Sequence[str], bodies: Sequence[bytes]) -> None:
        with self.env.begin(write=True) as txn:
            txn.cursor().putmulti(list(zip(self.subject_keys(subjects), bodies, strict=True)), append=True)

    def view(self) -> Any:
        """One long read transaction: LMDB's fastest way to read."""
        if self.reading is None:
            self.reading = self.env.begin(buffers=True)
        return self.reading

    def scan(self) -> Iterator[Any]:
        return self.view().cursor().iternext(keys=False)

    def get(self) -> Callable[[bytes], Any]:
        return self.view().get

    def sync(self) -> None:
        self.env.sync(True)

    def close(self) -> None:
        if self.reading is not None:
            self.reading.abort()
        self.env.close()


class Sqlite(Store):
    name = "sqlite"
    unsynced = "WAL with the OS at each commit (synchronous=OFF)"
    synced = "WAL synced at each commit (synchronous=FULL)"

    def __init__(self, home: Path, *, durable: bool = False) -> None:
        super().__init__(home, durable=durable)
        home.mkdir(parents=True, exist_ok=True)
        self.db = sqlite3.connect(home / "db", isolation_level=None, check_same_thread=False)
        run = self.db.execute
        run("pragma locking_mode=exclusive")  # one process, as ours
        run("pragma journal_mode=wal")
        run(f"pragma synchronous={'full' if durable else 'off'}")
        run(f"pragma cache_size=-{CACHE_BYTES >> 10}")
        run(f"pragma mmap_size={1 << 34}")
        run("create table if not exists m(seq integer primary key, data blob)")
        run("create table if not exists s(subject text primary key, data blob) without rowid")

    def keys(self, seqs: Iterable[int]) -> list[tuple[int]]:
        return [(seq,) for seq in seqs]

    def subject_keys(self, subjects: Iterable[str]) -> list[tuple[str]]:
        return [(afresh(subject),) for subject in subjects]

    def appender(self, bodies: Sequence[bytes]) -> Callable[[], None]:
        run = self.db.execute

        def each() -> None:
            for body in bodies:
                run("insert into m(data) values (?)", (body,))

        return each

    def extender(self, batches: Sequence[Sequence[bytes]]) -> Callable[[], None]:
        run, many = self.db.execute, self.db.executemany

        def each() -> None:
            for batch in batches:
                run("begin")
                many("insert into m(data) values (?)", zip(batch, strict=True))
                run("commit")

        return each

    def put_subjects(self, subjects: Sequence[str], bodies: Sequence[bytes]) -> None:
        self.db.execute("begin")
        self.db.executemany("insert into s values (?, ?)", zip(subjects, bodies, strict=True))
        self.db.execute("commit")

    def scan(self) -> Iterator[Any]:
        return (data for (data,) in self.db.execute("select data from m order by seq"))

    def get(self) -> Callable[[tuple[int]], Any]:
        run = self.db.execute
        return lambda key: run("select data from m where seq=?", key).fetchone()[0]

    def last_of(self) -> Callable[[tuple[str]], Any]:
        run = self.db.execute
        return lambda key: run("select data from s where subject=?", key).fetchone()[0]

    def sync(self) -> None:
        self.db.execute("pragma synchronous=full")
        self.settle()

    def settle(self) -> None:
        self.db.execute("pragma wal_checkpoint(truncate)")

    def close(self) -> None:
        self.db.close()


class Rocks(Store):
    name = "rocksdict"
    unsynced = "write-ahead log with the OS at each put"
    synced = "write-ahead log synced at each put; group commit"

    def __init__(self, home: Path, *, durable: bool = False) -> None:
        super().__init__(home, durable=durable)
        table = BlockBasedOptions()
        table.set_block_cache(Cache(CACHE_BYTES))
        table.set_bloom_filter(10, False)
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_compression_type(DBCompressionType.none())  # the bodies do not compress
        options.set_block_based_table_factory(table)
        self.db = Rdict(str(home), options)
        self.how = WriteOptions()
        self.how.sync = durable
        self.db.set_write_options(self.how)

    def appender(self, bodies: Sequence[bytes]) -> Callable[[], None]:
        put, keys = self.db.put, self.next_keys(len(bodies))

        def run() -> None:
            for key, body in zip(keys, bodies, strict=True):
                put(key, body)

        return run

    def extender(self, batches: Sequence[Sequence[bytes]]) -> Callable[[], None]:
        write, keys = self.db.write, [self.next_keys(len(batch)) for batch in batches]

        def run() -> None:
            for some, batch in zip(keys, batches, strict=True):
                together = WriteBatch(raw_mode=True)
                put = together.put
                for key, body in zip(some, batch, strict=True):
                    put(key, body)
                write(together, self.how)

        return run

    def put_subjects(self, subjects: Sequence[str], bodies: Sequence[bytes]) -> None:
        keys = self.subject_keys(subjects)
        for at in range(0, len(keys), 10_000):
            together = WriteBatch(raw_mode=True)
            for _ in starmap(together.put, zip(keys[at : at + 10_000], bodies[at : at + 10_000], strict=True)):
                pass
            self.db.write(together)

    def scan(self) -> Iterator[Any]:
        return self.db.values()

    def get(self) -> Callable[[bytes], Any]:
        return self.db.get

    def sync(self) -> None:
        self.db.flush_wal(sync=True)

    def settle(self) -> None:
        self.db.flush()
        self.db.compact_range(None, None)

    def close(self) -> None:
        self.db.close()


class RawFile(Store):
    """No store: bytes one after the other, without frame, checksum or index. What the disk and the kernel allow."""

    name = "raw file"
    unsynced = "write() at each append"
    synced = "write() and fdatasync() at each append"

    def __init__(self, home: Path, *, durable: bool = False, reserve: int = 0) -> None:
        super().__init__(home, durable=durable)
        home.mkdir(parents=True, exist_ok=True)
        self.fd = os.open(home / "data", os.O_RDWR | os.O_CREAT)
        if reserve:
            os.posix_fallocate(self.fd, 0, reserve)

    def appender(self, bodies: Sequence[bytes]) -> Callable[[], None]:
        def run() -> None:
            write, sync, fd = os.write, os.fdatasync, self.fd
            if self.durable:
                for body in bodies:
                    write(fd, body)
                    sync(fd)
            else:
                for body in bodies:
                    write(fd, body)

        return run

    def extender(self, batches: Sequence[Sequence[bytes]]) -> Callable[[], None]:
        return self.appender([b"".join(batch) for batch in batches])

    def sync(self) -> None:
        os.fdatasync(self.fd)

    def close(self) -> None:
        os.close(self.fd)


class BufferedFile(RawFile):
    """As the raw file, through Python's buffered writer: what a hand-over of many appends at once can reach."""

    name = "raw file, buffered"
    unsynced = "with the OS each 64 KiB"

    def appender(self, bodies: Sequence[bytes]) -> Callable[[], None]:
        self.file = open(self.fd, "wb", buffering=1 << 16, closefd=False)
        write = self.file.write

        def run() -> None:
            for body in bodies:
                write(body)

        return run

    def hand_over(self) -> None:
        self.file.flush()


RIVALS: tuple[type[Store], ...] = (Lmdb, Sqlite, Rocks)
