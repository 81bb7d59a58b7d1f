"""Wall clocks that jump: F21. A preloaded library moves the clock of one process, so the peer, which asks the kernel by
itself, cannot be played.
"""

from __future__ import annotations

import mmap
import struct
import subprocess
from pathlib import Path

from jscore_server.demo import api, eventually

from tests.faults.cluster.hosts import Host
from tests.faults.cluster.trial import STREAM, Trial, fault

HOUR = 3600
SHIM = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long long *offset;

__attribute__((constructor)) static void map(void) {
    const char *path = getenv("FAULT_CLOCK");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *p = fd < 0 ? MAP_FAILED : mmap(NULL, 8, PROT_READ, MAP_SHARED, fd, 0);
    if (p != MAP_FAILED) offset = p;
    if (fd >= 0) close(fd);
}

int clock_gettime(clockid_t id, struct timespec *t) {
    int rc = (int)syscall(SYS_clock_gettime, id, t);
    if (!rc && offset && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) t->tv_sec += *offset;
    return rc;
}

int gettimeofday(struct timeval *restrict t, void *restrict zone) {
    struct timespec s;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &s)) return -1;
    t->tv_sec = s.tv_sec;
    t->tv_usec = s.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *t) {
    struct timespec s;
    clock_gettime(CLOCK_REALTIME, &s);
    if (t) *t = s.tv_sec;
    return s.tv_sec;
}
"""


def shim(home: Path) -> Path:
    """The library, built. Raises: OSError, subprocess.CalledProcessError."""
    source, library = home / "clock.c", home / "clock.so"
    source.write_text(SHIM)
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", str(source), "-o", str(library)], check=True, timeout=60)
    return library


def clocked(host: Host, home: Path, library: Path) -> None:
    """From its next start on the host reads its clock through the library."""
    place = home / f"{host.name}.clock"
    place.write_bytes(bytes(8))
    host.command = ["env", f"LD_PRELOAD={library}", f"FAULT_CLOCK={place}", *host.command]


def jump(t: Trial, host: Host, seconds: int) -> None:
    """Its clock is so far from the real one from now on."""
    with (t.hosts.home / f"{host.name}.clock").open("r+b") as file, mmap.mmap(file.fileno(), 8) as page:
        page[:] = struct.pack("<q", seconds)
    t.note(f"{host.name}: clock {seconds / HOUR:+.0f} h")


@fault("F21", "clocks that jump by hours", "no leader change, no time of a message before the one before", clock=True,
       peer=False)  # fmt: skip
async def clock_jumps(t: Trial) -> None:
    async with t.load():
        await t.run(3)
        leader, follower = await t.leader(), await t.follower()
        for host, hours in ((leader, 6), (follower, -6), (leader, -12), (follower, 48), (leader, 0), (follower, 0)):
            jump(t, host, hours * HOUR)
            await t.run(3)
            t.must((await t.leader()) is leader, f"leadership moved when the clock of {host.name} did")
        await t.more(200)

    async def times() -> list[str]:
        last = (await t.info())["state"]["last_seq"]
        found = []
        for seq in range(1, last + 1, max(1, last // 200)):
            message = (await api(t.client, f"STREAM.MSG.GET.{STREAM}", {"seq": seq}))["message"]
            found.append(message["time"].rstrip("Z"))  # zeros at its end are left out, so Z would sort
        return found

    seen = await eventually(times, 60, "the messages' times")
    t.must(seen == sorted(seen), "the time of a message is before that of one before it")
