"""Files that rot, vanish or are older than they should be: F4-F11, F15, F16."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path

from jscore_server.demo import api, eventually

from tests.faults.cluster.hosts import Host, healthz
from tests.faults.cluster.trial import STREAM, Skipped, Trial, fault

PAGE = 4096


def data_files(t: Trial, host: Host) -> list[Path]:
    """The stream's messages, oldest first."""
    if t.is_peer:
        return sorted((host.data / "$G" / "streams" / STREAM / "msgs").glob("*.blk"), key=lambda p: int(p.stem))
    return sorted((host.data / "streams" / "$G").glob("S-*/*.seg"))


def log_files(t: Trial, host: Host) -> list[Path]:
    """The Raft log of the stream's group; ours is the stream's messages."""
    if t.is_peer:
        return sorted((host.data / "$SYS" / "_js_").glob("S-*/msgs/*.blk"), key=lambda p: int(p.stem))
    return data_files(t, host)


def meta_files(t: Trial, host: Host) -> list[Path]:
    """What the meta group keeps: its snapshots, else its log."""
    if t.is_peer:
        place = host.data / "$SYS" / "_js_" / "_meta_"
        return sorted(place.glob("snapshots/*")) or sorted(place.glob("msgs/*.blk"))
    return sorted((host.data / "_meta_").glob("*.seg"))


def vote_files(t: Trial, host: Host) -> list[Path]:
    if t.is_peer:
        return sorted((host.data / "$SYS" / "_js_").glob("*/*.idx"))
    return sorted((host.data / "hardstate").glob("*.seg"))


def snapshot_files(t: Trial, host: Host) -> list[Path]:
    """State of the group of the stream SHORT as it stood when its log was cut at the front."""
    if t.is_peer:
        return sorted((host.data / "$SYS" / "_js_").glob("S-*/snapshots/*"))
    return sorted((host.data / "streams").glob("*/*/snapshot*"))


def small_files(t: Trial, host: Host) -> list[Path]:
    """Files that describe a store, a stream or a consumer."""
    found = (p for p in host.data.rglob("*") if p.is_file())
    return sorted(p for p in found if p.suffix in (".inf", ".sum", ".json") or p.name == "o.dat")


def index_files(t: Trial, host: Host) -> list[Path]:
    kinds = (data_files, log_files, meta_files, vote_files, small_files)
    known = {path for kind in kinds for path in kind(t, host)}
    found = (p for p in host.data.rglob("*") if p.is_file() and p.stat().st_size)
    return sorted(p for p in found if p not in known and p.suffix != ".blk")


def used(path: Path) -> int:
    """Bytes written to a file, without the zeros it was made larger by in advance."""
    return len(path.read_bytes().rstrip(b"\0"))


def flip(t: Trial, path: Path) -> str:
    """One bit somewhere in what was written."""
    length = used(path)
    at = t.rng.randrange(min(64, length - 1), length)
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << t.rng.randrange(8)]))
    return f"bit flipped at {at} of {length} in {path.name}"


def truncate(t: Trial, path: Path) -> str:
    length = used(path)
    with path.open("r+b") as file:
        file.truncate(length // 2)
    return f"{path.name} cut to {length // 2} of {length}"


def page(t: Trial, path: Path, zero: bool) -> str:
    length = used(path)
    at = t.rng.randrange(max(1, length // PAGE)) * PAGE
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes(PAGE) if zero else t.rng.randbytes(PAGE))
    return f"{'zeros' if zero else 'noise'} at {at} of {length} in {path.name}"


def damage(t: Trial, path: Path, kind: str) -> str:
    """Raises: Skipped when there is nothing to damage."""
    if not used(path):
        raise Skipped(f"{path.name} is empty")
    match kind:
        case "flip":
            return flip(t, path)
        case "truncate":
            return truncate(t, path)
        case "zero":
            return page(t, path, zero=True)
        case "noise":
            return page(t, path, zero=False)
        case _:
            path.unlink()
            return f"{path.name} deleted"


async def filled(t: Trial, seconds: float = 5) -> None:
    """Messages for some seconds, and every replica has them."""
    async with t.load():
        await t.run(seconds)
        await t.more(500)
    await t.current()


async def whole_again(t: Trial, hosts: list[Host]) -> None:
    """Hosts with damaged files are started; then what they say of themselves, and how soon all is whole."""
    at = time.monotonic()
    for host in hosts:
        host.start()
    try:
        await t.up(hosts, 20)
        await t.current(30)
        await t.healthy(20)
        t.within("whole after", time.monotonic() - at, 10)
    except (TimeoutError, RuntimeError) as err:
        said = [(host.name, *await asyncio.to_thread(healthz, host)) for host in hosts]
        t.must(False, f"not repaired: {str(err)[:300]}; healthz {said}")


async def damaged(t: Trial, host: Host, path: Path, kind: str) -> None:
    """A file of a host is damaged while it is down."""
    if host.running:
        (host.kill if t.rng.random() < 0.5 else host.stop)()
    t.tell(f"{host.name}: {damage(t, path, kind)}")
    await whole_again(t, [host])


async def one_file(t: Trial, files: list[Path], host: Host, kind: str, what: str) -> None:
    if not files:
        raise Skipped(f"no {what} here")
    await damaged(t, host, t.rng.choice(files), kind)


@fault("F4", "a flipped bit in a data file of one", "lost 0 on every node, told until repaired, repair in 10 s")
async def bit_flip(t: Trial) -> None:
    await filled(t)
    host = await t.follower() if t.round % 2 else await t.leader()
    await damaged(t, host, data_files(t, host)[0], "flip")
    if t.round % 3 == 2:  # what was damaged leads, and another is filled from it
        await t.lead(host)
        other = await t.follower()
        other.kill()
        other.wipe()
        other.start()
        await t.up([other])
    async with t.load():
        await t.more(300)


@fault("F5", "a data file of one truncated, zeroed, replaced, deleted", "as F4")
async def cut_file(t: Trial) -> None:
    await filled(t)
    host = await t.follower()
    files = data_files(t, host)
    kind = ("truncate", "zero", "noise", "delete")[t.round % 4]
    await damaged(t, host, t.rng.choice(files), kind)
    async with t.load():
        await t.more(300)


@fault("F6", "index and cache files damaged", "rebuilt, never trusted")
async def index_damage(t: Trial) -> None:
    await filled(t)
    host = await t.follower()
    host.stop()
    await one_file(t, index_files(t, host), host, ("flip", "truncate", "delete")[t.round % 3], "index or cache files")


@fault("F7", "the Raft log of a stream damaged at its end", "lost 0, no cut below what was durable")
async def log_damage(t: Trial) -> None:
    await filled(t)
    host = await t.leader() if t.round % 2 else await t.follower()
    files = log_files(t, host)
    if not files:
        raise Skipped("no Raft log here")
    await damaged(t, host, files[-1], ("flip", "truncate")[t.round // 2 % 2])
    async with t.load():
        await t.more(300)


@fault("F8", "meta state damaged, on one, on two of five", "starts, no stream deleted, serves", hosts=5, replicas=5)
async def meta_damage(t: Trial) -> None:
    await filled(t)
    hit = t.rng.sample(list(t.hosts), 1 + t.round % 2)
    kind = ("flip", "truncate", "flip", "delete")[t.round // 2 % 4]
    for host in hit:
        host.kill()
    for host in hit:
        files = meta_files(t, host)
        if not files:
            raise Skipped("no meta state here")
        t.tell(f"{host.name}: {damage(t, t.rng.choice(files), kind)}")
    await whole_again(t, hit)
    async with t.load():
        await t.more(300)


SHORT = {"name": "SHORT", "subjects": ["short"], "num_replicas": 3, "storage": "file", "max_msgs": 40}


async def shortened(t: Trial) -> None:
    """A second stream that keeps its last messages only, published to until each host has a snapshot of it."""
    await eventually(lambda: api(t.client, "STREAM.CREATE.SHORT", SHORT), 30, "a short stream")

    async def more() -> bool:
        await asyncio.gather(*(t.client.request("short", t.rng.randbytes(32768), timeout=2) for _ in range(20)))
        return all(snapshot_files(t, host) for host in t.hosts)

    await eventually(more, 60, "a snapshot on each host")


async def short_messages(t: Trial) -> list[tuple[int, str]]:
    """(sequence, payload) of all that the short stream has."""
    state = (await eventually(lambda: t.info("SHORT"), 20, "the short stream"))["state"]
    found = []
    for seq in range(state["first_seq"], state["last_seq"] + 1):
        got = await eventually(lambda seq=seq: api(t.client, "STREAM.MSG.GET.SHORT", {"seq": seq}), 20, f"short {seq}")
        found.append((seq, got["message"]["data"]))
    return found


@fault("F9", "the snapshot of a stream's group damaged; odd rounds each copy of it", "repaired from peers")
async def snapshot_damage(t: Trial) -> None:
    await filled(t, 2)
    await shortened(t)
    wanted = await short_messages(t)
    host = await t.follower()
    (host.kill if t.rng.random() < 0.5 else host.stop)()
    files = snapshot_files(t, host)
    kind = ("flip", "truncate", "delete")[t.round // 2 % 3]
    for path in files if t.round % 2 else [t.rng.choice(files)]:
        t.tell(f"{host.name}: {damage(t, path, kind)}")
    await whole_again(t, [host])
    try:
        await t.lead(host, stream="SHORT")
        t.must(await short_messages(t) == wanted, f"{host.name} has other messages")
    except TimeoutError as err:
        t.must(False, str(err))
    async with t.load():
        await t.more(300)


@fault("F10", "the file of votes and terms damaged", "noticed, no vote given twice, lost 0")
async def vote_damage(t: Trial) -> None:
    await filled(t)
    host = t.rng.choice(list(t.hosts))
    host.stop()
    await one_file(t, vote_files(t, host), host, ("flip", "truncate", "zero", "delete")[t.round % 4], "votes")
    async with t.load():
        await t.more(300)


@fault("F11", "a small file that describes a store, a stream or a consumer damaged", "recreated, lost 0")
async def small_damage(t: Trial) -> None:
    await filled(t)
    host = await t.follower()
    host.stop()
    await one_file(t, small_files(t, host), host, ("flip", "truncate", "delete")[t.round % 3], "small files")
    async with t.load():
        await t.more(300)


@fault("F15", "an emptied disk under the same name; each in turn", "lost 0, filled again")
async def wiped(t: Trial) -> None:
    await filled(t)
    hosts = list(t.hosts)
    t.rng.shuffle(hosts)
    async with t.load():
        for host in hosts[: 1 + 2 * (t.round % 2)]:
            host.kill()
            host.wipe()
            at = time.monotonic()
            host.start()
            await t.up([host])
            await t.current(60)
            t.tell(f"{host.name} filled again after {time.monotonic() - at:.1f} s")
            await t.more(200)


@fault("F16", "an old copy of a disk comes back", "noticed, filled again, lost 0")
async def old_image(t: Trial) -> None:
    await filled(t, 3)
    host = t.rng.choice(list(t.hosts))
    old = t.hosts.home / "old"
    host.kill()
    await asyncio.to_thread(shutil.copytree, host.store, old)
    host.start()
    await t.up([host])
    await filled(t, 4)
    host.kill()
    shutil.rmtree(host.store)
    old.rename(host.store)
    other = await t.leader()
    other.kill()  # so that the old copy would be needed for a quorum
    host.start()
    await asyncio.sleep(4)
    other.start()
    await t.up()
    async with t.load():
        await t.more(300)
