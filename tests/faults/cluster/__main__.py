"""`./dev faults NAME`: one fault, or all of them, one line of verdict each."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from jscore_server.demo import connect, daemon

from tests.faults.cluster import (
    recipes_change,
    recipes_clock,
    recipes_crash,
    recipes_damage,
    recipes_disk,
    recipes_many,
    recipes_network,
)
from tests.faults.cluster.delay import Delay
from tests.faults.cluster.hosts import Hosts, Network, peer
from tests.faults.cluster.trial import FAULTS, Fault, Skipped, Trial, busy
from tests.faults.disks import missing

RECIPES = (recipes_change, recipes_clock, recipes_crash, recipes_damage, recipes_disk, recipes_many, recipes_network)


def names() -> list[str]:
    return [f"F{n}" for n in range(1, 35)] + ["random"]


def unfit(fault: Fault) -> str | None:
    """Why this machine cannot run it; None when it can."""
    if fault.network and (why := Network.missing()):
        return why
    if fault.disk == "ext4":
        with tempfile.TemporaryDirectory(prefix="faults-") as place:
            return missing(Path(place))
    if fault.disk == "tmpfs" and os.geteuid() != 0:
        return "mounting needs root"
    return None


async def play(trial: Trial) -> dict[str, Any]:
    hosts = trial.hosts
    if not hosts.proxies:
        return await played(trial)
    async with Delay(hosts.proxies, [host.route_port for host in hosts], trial.rng):
        return await played(trial)


async def played(trial: Trial) -> dict[str, Any]:
    trial.hosts.start()
    await trial.up()
    trial.client = await connect(trial.hosts.urls)
    try:
        await trial.create()
        await trial.current()
        try:
            await asyncio.wait_for(trial.fault.play(trial), trial.fault.seconds)
        except (TimeoutError, RuntimeError) as err:
            trial.must(False, f"the recipe did not get to its end: {str(err)[:400]}")
        trial.journal.void = False
        verdict = await trial.finish()
    finally:
        with contextlib.suppress(Exception):
            await asyncio.wait_for(trial.client.close(), 5)
    return {
        "acked": verdict.acked,
        "lost": verdict.lost,
        "moved": verdict.moved,
        "doubled": verdict.doubled,
        "differ": verdict.differ,
        "wrong": verdict.wrong,
        "slow": trial.slow,
        "said": trial.said,
    }


def one_round(
    fault: Fault, options: argparse.Namespace, seed: int, number: int, network: Network | None
) -> dict[str, Any]:
    command = peer() if options.peer else daemon()
    if command is None:
        raise Skipped("nats-server is not on PATH")
    home = Path(tempfile.mkdtemp(prefix=f"faults-{fault.name}-", dir=options.home))
    home.chmod(0o755)
    kept = False
    try:
        more = "sync_interval: always" if options.peer and options.always else ""
        with Hosts(
            home,
            command,
            fault.hosts,
            disk=fault.disk,
            network=network,
            more=fault.more or more,
            delayed=fault.delayed,
        ) as hosts:
            if fault.clock:
                library = recipes_clock.shim(home)
                for host in hosts:
                    recipes_clock.clocked(host, home, library)
            trial = Trial(
                fault, hosts, random.Random(seed), number, options.peer, options.scale, options.verbose, network
            )
            result = asyncio.run(asyncio.wait_for(play(trial), fault.seconds * 2 + 120))
        if result["wrong"] and options.keep:
            kept = True
            result["home"] = str(home)
        return result
    finally:
        if not kept:
            shutil.rmtree(home, ignore_errors=True)


def line(name: str, results: list[dict[str, Any]], seed: int) -> str:
    """The verdict over all rounds."""
    wrong = [text for result in results for text in result["wrong"]]
    slow = [text for result in results for text in result["slow"]]
    told = "; ".join(results[-1]["said"]) if results else ""
    words = "PASS"
    if wrong:
        words = "MISS"
    elif slow:
        words = "PASS (times not judged, the machine is busy)" if busy() else "SLOW"
    acked = sum(result["acked"] for result in results)
    counts = ", ".join(f"{what} {sum(r[what] for r in results)}" for what in ("lost", "moved", "doubled"))
    text = f"{name:6s} {words}: {len(results)} rounds from seed {seed}, {acked:,} acknowledged, {counts}"
    if told:
        text += f" [{told}]"
    for item in dict.fromkeys(wrong[:6]):
        text += f"\n         {item[:600]}"
    for item in dict.fromkeys(slow[:3]):
        text += f"\n         slow: {item}"
    return text


def run(name: str, options: argparse.Namespace) -> int:
    fault = FAULTS[name]
    if options.peer and not fault.peer:
        print(f"{name:6s} skipped: the recipe has no meaning for nats-server", flush=True)
        return 0
    why = unfit(fault)
    if why:
        print(f"{name:6s} skipped: {why}", flush=True)
        return 0
    results: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(Network(fault.hosts)) if fault.network else None
        for number in range(options.first, options.first + options.rounds):
            if options.verbose:
                print(f"{name} round {number}, seed {options.seed + number}: {fault.title}", flush=True)
            try:
                results.append(one_round(fault, options, options.seed + number, number, network))
            except Skipped as err:
                print(f"{name:6s} round {number} skipped: {err}", flush=True)
                continue
            except Exception as err:
                if options.verbose:
                    traceback.print_exc()
                text = f"the trial broke: {type(err).__name__} {err}"
                results.append(dict(acked=0, lost=0, moved=0, doubled=0, differ=False, wrong=[text], slow=[], said=[]))
            if options.json:
                with options.json.open("a") as file:
                    file.write(json.dumps({"fault": name, "seed": options.seed + number, **results[-1]}) + "\n")
    if not results:
        return 0
    print(line(name, results, options.seed + options.first), flush=True)
    return 1 if any(result["wrong"] for result in results) else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev faults", description=__doc__)
    parser.add_argument("name", help="F1 ... F34, random, or all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first round; some recipes change with it")
    parser.add_argument("--peer", action="store_true", help="nats-server instead of ours")
    parser.add_argument("--always", action="store_true", help="with --peer: sync_interval always")
    parser.add_argument("--scale", type=float, default=1.0, help="factor of the recipe's own times")
    parser.add_argument("--home", type=Path, default=None, help="where stores and logs go")
    parser.add_argument("--keep", action="store_true", help="leave them there when something was wrong")
    parser.add_argument("--json", type=Path, help="one line for each round is appended")
    parser.add_argument("-v", "--verbose", action="store_true")
    options = parser.parse_args()
    if options.name != "all":
        if options.name not in names():
            parser.error(f"no fault {options.name}: F1 ... F34, random, all")
        return run(options.name, options)
    failed = 0
    arguments = sys.argv[1:]
    arguments.remove("all")
    for name in names():  # each in a process of its own: what one leaves behind is not the next one's
        limit = (FAULTS[name].seconds * 2 + 180) * options.rounds if name in FAULTS else 60
        started = time.monotonic()
        try:
            done = subprocess.run([sys.executable, "-m", "tests.faults.cluster", name, *arguments], timeout=limit)
            failed += done.returncode != 0
        except subprocess.TimeoutExpired:
            failed += 1
            print(f"{name:6s} MISS: not done after {time.monotonic() - started:.0f} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
