"""The command `jscore`: looks into directories of logs that nobody has open, and mends them.

verify, info and dump read only; repair and compact write. Exit codes: 0 sound and done; 1 damage was found (repair: is
left); 2 could not run: no such log, in use, key or version unknown, bad arguments.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import jscore
from jscore.keyfile import read_keys
from jscore.progress import Progress

SOUND, DAMAGE, COULD_NOT = 0, 1, 2
SEGMENT = re.compile(r"[0-9a-f]{16}\.seg")
# Records asked of a replica in one piece.
REPAIR_RECORDS = 4096


UNSURE = "the checkpoint and its copy are lost: messages that limits and purges with keep took are there again"


class CouldNot(Exception):
    """The sentence says why nothing was done."""


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="jscore",
        description="Tools for directories of jscore logs that no process has open.",
        epilog="Exit codes: 0 sound and done, 1 damage found (repair: left), 2 could not run.",
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("dir", metavar="DIR", help="directory of the log")
    common.add_argument("--json", action="store_true", help="machine-readable output")
    common.add_argument("--key-file", metavar="FILE", help="keys of an encrypted log: lines of ID and 64 hex digits")
    words = root.add_subparsers(dest="word", metavar="verify|info|dump|repair|compact", required=True)
    words.add_parser("verify", parents=[common], help="check every byte").set_defaults(run=verify)
    words.add_parser("info", parents=[common], help="what is in it; only verify reads every byte").set_defaults(
        run=info
    )
    dump_ = words.add_parser("dump", parents=[common], help="print messages; --json: one object a line")
    dump_.add_argument("--subject", action="append", default=[], metavar="FILTER", help='as in "a.*.>"; repeatable')
    dump_.add_argument("--from", dest="lo", type=sequence, default=1, metavar="SEQ", help="first sequence")
    dump_.add_argument("--to", dest="hi", type=sequence, metavar="SEQ", help="last sequence")
    dump_.add_argument("--limit", type=sequence, metavar="N", help="at most so many messages")
    dump_.add_argument("--raw", action="store_true", help="only the payloads, one behind the other")
    dump_.set_defaults(run=dump)
    repair_ = words.add_parser("repair", parents=[common], help="take lost records back from a replica")
    repair_.add_argument("--from", dest="replica", metavar="DIR", help="directory of an intact copy of the log")
    repair_.add_argument(
        "--without-checkpoint",
        action="store_true",
        help="where it is lost with its copy: take what limits and purges deleted for live again",
    )
    repair_.set_defaults(run=repair)
    compact_ = words.add_parser("compact", parents=[common], help="give back the space of deleted messages")
    compact_.add_argument("--all", action="store_true", help="wherever there is any, not only where it pays")
    compact_.set_defaults(run=compact)
    return root


def sequence(text: str) -> int:
    n = int(text)
    if not 0 < n < 1 << 63:
        raise ValueError
    return n


# ---- opening ----


def open_log(path: str, args: argparse.Namespace, *, write: bool = False) -> jscore.Log:
    """Read-only under the lock, or for writing without a background thread. Raises: CouldNot, jscore.Corrupt."""
    if not os.path.isdir(path):
        raise CouldNot(f"{path}: no such directory")
    if not any(SEGMENT.fullmatch(name) for name in os.listdir(path)):
        raise CouldNot(f"{path}: no log in it")
    try:
        keys = read_keys(args.key_file) if args.key_file else None
        if write:
            accept = getattr(args, "without_checkpoint", False)
            return jscore.open(path, "a", keys=keys, background=False, without_checkpoint=accept)
        return jscore.open(path, "r", keys=keys, exclusive=True)
    except jscore.Locked:
        raise CouldNot(f"{path}: in use by another process") from None
    except jscore.KeyMissing as err:
        raise CouldNot(f"{path}: {err}" + ("" if args.key_file else "; see --key-file")) from None
    except jscore.FormatError as err:
        raise CouldNot(f"{path}: {err}") from None


def place(d: jscore.Damage) -> dict[str, Any]:
    return {**d._asdict(), "segment": f"{d.segment:016x}.seg"}


def sentence(d: jscore.Damage) -> str:
    if d.first_seq is None:
        lost = "sequences not known" if not d.seqs_exact else "no message among them"
    else:
        lost = f"sequences {d.first_seq} to {d.last_seq}" + ("" if d.seqs_exact else " at most")
    return f"{d.segment:016x}.seg: offset {d.offset}: records {d.first} to {d.last} are lost ({lost})"


def show(args: argparse.Namespace, value: dict[str, Any], lines: Sequence[str]) -> None:
    print(json.dumps(value) if args.json else "\n".join(lines))


# ---- the words ----


def verify(args: argparse.Namespace) -> int:
    with open_log(args.dir, args) as log:
        with Progress("verifying") as report:
            findings = log.verify(report)
        damage = log.damage()
        messages, size = len(log), log.disk_bytes
    # Files that a killed process or somebody else left beside the log are told, and are no damage of it.
    sound = not damage and all(f.what.startswith("remains: ") for f in findings)
    lines = [f"{f.file}: offset {f.offset}: {f.what}" for f in findings] + [sentence(d) for d in damage]
    lines.append(f"{'sound' if sound else 'DAMAGED'}: {messages} messages, {size} bytes")
    found = {
        "sound": sound,
        "messages": messages,
        "disk_bytes": size,
        "findings": [f._asdict() for f in findings],
        "damage": [place(d) for d in damage],
    }
    show(args, found, lines)
    return SOUND if sound else DAMAGE


def info(args: argparse.Namespace) -> int:
    with open_log(args.dir, args) as log:
        stats = log.stats()
        unsure = log.recovery.deletions_unsure
        ends = [edge(log, seq) for seq in (stats.first_seq, stats.last_seq)] if stats.messages else [None, None]
        damage = log.damage()  # the ends were read: of the rest only what opening finds
    limits = stats.limits._asdict()
    value = {**stats._asdict(), "limits": limits, "first_ts": ends[0], "last_ts": ends[1]}
    value["damage"] = [place(d) for d in damage]
    value["deletions_unsure"] = unsure
    span = f"{stats.first_seq} to {stats.last_seq}" if stats.messages else "none"
    lines = [
        f"messages      {stats.messages}",
        f"sequences     {span}",
        f"times         {when(ends[0])} to {when(ends[1])}" if stats.messages else "times         none",
        f"record bytes  {stats.message_bytes}",
        f"disk bytes    {stats.disk_bytes} in {stats.segments} segments",
        "limits        " + (", ".join(f"{name} {n}" for name, n in limits.items() if n) or "none"),
        *(sentence(d) for d in damage),
        *([UNSURE] if unsure else []),
    ]
    show(args, value, lines)
    return DAMAGE if damage or unsure else SOUND


def edge(log: jscore.Log, seq: int) -> int | None:
    try:
        return log[seq].ts
    except jscore.Error:
        return None


def when(ts: int | None) -> str:
    if ts is None:
        return "unknown"
    try:
        return f"{datetime.fromtimestamp(ts // 1_000_000_000, UTC):%Y-%m-%dT%H:%M:%S}.{ts % 1_000_000_000:09d}Z"
    except (ValueError, OverflowError, OSError):
        return str(ts)


def dump(args: argparse.Namespace) -> int:
    left = args.limit
    out = sys.stdout.buffer
    code = SOUND
    with open_log(args.dir, args) as log:
        if log.recovery.deletions_unsure:
            print(f"jscore: {UNSURE}", file=sys.stderr)
            code = DAMAGE
        messages = iter(log.subject(*args.subject).after(args.lo - 1))
        while left is None or left > 0:
            try:
                message = next(messages, None)
            except jscore.Corrupt as err:
                if args.hi is not None and err.seq is not None and err.seq > args.hi:
                    break
                print(f"jscore: {err}", file=sys.stderr)
                code = DAMAGE
                continue
            if message is None or (args.hi is not None and message.seq > args.hi):
                break
            if args.raw:
                out.write(message.data)
            elif args.json:
                out.write(json.dumps(as_json(message)).encode() + b"\n")
            else:
                subject = message.subject.encode("utf-8", "surrogateescape")
                head = f"{message.seq} {when(message.ts)} ".encode() + subject
                out.write(head + f" {len(message.headers)}+{message.size}\n".encode())
                out.write(b"".join((message.headers, message.data, b"\n")))
            if left is not None:
                left -= 1
    out.flush()
    return code


def as_json(message: jscore.Message) -> dict[str, Any]:
    """Payloads that are UTF-8 as text; others, and the fields' names then, as base64."""
    value: dict[str, Any] = {"seq": message.seq, "ts": message.ts, "subject": message.subject}
    for name, data in (("headers", bytes(message.headers)), ("data", bytes(message.data))):
        if name == "headers" and not data:
            continue
        try:
            value[name] = data.decode()
        except UnicodeDecodeError:
            value[name + "_base64"] = base64.b64encode(data).decode()
    return value


def repair(args: argparse.Namespace) -> int:
    healed = 0
    notes: list[str] = []
    if args.replica is not None and os.path.realpath(args.replica) == os.path.realpath(args.dir):
        raise CouldNot("a log is no replica of itself")
    with open_log(args.dir, args, write=True) as log:
        log.scrub()  # opening reads little of sealed segments
        before = log.damage()
        if before and args.replica is not None:
            with open_log(args.replica, args) as replica:
                healed, notes = take_back(log, replica, before)
        after = log.damage()
    lines = [*notes, *(f"left: {sentence(d)}" for d in after)]
    lines.append(f"{healed} records taken back, {len(after)} of {len(before)} places of damage left")
    value = {
        "healed": healed,
        "before": [place(d) for d in before],
        "left": [place(d) for d in after],
        "notes": notes,
    }
    show(args, value, lines)
    return DAMAGE if after else SOUND


def take_back(log: jscore.Log, replica: jscore.Log, damage: Sequence[jscore.Damage]) -> tuple[int, list[str]]:
    healed, done = 0, 0
    notes: list[str] = []
    total = sum(d.last - d.first + 1 for d in damage)
    with Progress("repairing") as report:
        for d in damage:
            for lo in range(d.first, d.last + 1, REPAIR_RECORDS):
                hi = min(lo + REPAIR_RECORDS - 1, d.last)
                try:
                    healed += log.repair(replica.copy_records(lo, hi))
                except (jscore.NotFound, jscore.Corrupt) as err:
                    notes.append(f"records {lo} to {hi}: {err}")
                done += hi - lo + 1
                report(done, total)
    return healed, notes


def compact(args: argparse.Namespace) -> int:
    with open_log(args.dir, args, write=True) as log:
        before = log.disk_bytes
        log.compact(all=args.all)
    # Closed, so that nothing is under way.
    with open_log(args.dir, args) as log:
        after, live, damage = log.disk_bytes, log.bytes, log.damage()
    value = {"before": before, "after": after, "record_bytes": live, "damage": [place(d) for d in damage]}
    show(args, value, [*(sentence(d) for d in damage), f"{before} -> {after} bytes on disk, {live} of live records"])
    return DAMAGE if damage else SOUND


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)  # exits with 2 by itself
    run: Callable[[argparse.Namespace], int] = args.run
    try:
        return run(args)
    except CouldNot as err:
        print(f"jscore: {err}", file=sys.stderr)
    except jscore.Corrupt as err:
        print(f"jscore: {args.dir}: {err}", file=sys.stderr)
        return DAMAGE
    except BrokenPipeError:
        # Whoever read our output has enough; Python must not fail at flushing it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return SOUND
    except KeyboardInterrupt:
        print("jscore: interrupted", file=sys.stderr)
    except MemoryError:
        print(f"jscore: {args.dir}: not enough memory", file=sys.stderr)
    except (jscore.Error, OSError, ValueError) as err:
        print(f"jscore: {args.dir}: {err}", file=sys.stderr)
    return COULD_NOT


if __name__ == "__main__":
    sys.exit(main())
