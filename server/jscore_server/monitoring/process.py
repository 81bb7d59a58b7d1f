"""The process behind the server: /debug/vars (EXPVARZ), /stacksz, and the queues of /ipqueuesz."""

from __future__ import annotations

import asyncio
import gc
import resource
import sys
import traceback

from jscore_server.monitoring.monitor import Body, Monitor, resident_bytes
from jscore_server.monitoring.query import Asked, Option

QUEUE_OPTIONS = (Option("all", "bool"), Option("filter", "text", "queues"))
EXPVAR_OPTIONS: tuple[Option, ...] = ()
STACK_FRAMES = 20


def ipqueuesz(monitor: Monitor, asked: Asked) -> Body:
    """What waits: requests to the API, records of streams not yet applied. Empty ones only with `all`."""
    queues: dict[str, int] = {}
    engine = monitor.engine()
    if engine is not None:
        queues["JetStream API queue"] = engine.api.waiting()
        for (account, name), asset in engine.assets.items():
            if not asset.failed:
                waiting = max(0, asset.log.last - asset.stream.applied)
                queues[f"[ACC:{account}] stream '{name}' messages"] = waiting
    return {
        name: {"pending": pending}
        for name, pending in sorted(queues.items())
        if (pending or asked["all"]) and asked["filter"] in name
    }


def expvarz(monitor: Monitor, asked: Asked) -> Body:
    """Named as Go names them, as far as there is an equal here."""
    mem = resident_bytes()
    collections = sum(generation["collections"] for generation in gc.get_stats())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "cmdline": list(sys.orig_argv),
        "memstats": {
            "Alloc": mem,
            "TotalAlloc": peak,
            "Sys": mem,
            "HeapAlloc": mem,
            "HeapSys": mem,
            "HeapInuse": mem,
            "HeapObjects": sum(gc.get_count()),
            "NumGC": collections,
            "EnableGC": gc.isenabled(),
        },
    }


def stacksz(monitor: Monitor) -> str:
    """Where every thread and task of ours stands, for people."""
    parts = []
    for ident, frame in sys._current_frames().items():
        parts.append(f"thread {ident}:\n" + "".join(traceback.format_stack(frame, STACK_FRAMES)))
    for task in asyncio.all_tasks():
        lines = [
            f'  File "{f.f_code.co_filename}", line {f.f_lineno}, in {f.f_code.co_name}\n' for f in task.get_stack()
        ]
        parts.append(f"task {task.get_name()}:\n" + "".join(lines))
    return "\n".join(parts)
