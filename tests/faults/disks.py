"""Small file systems of a test's own: images that lose power, disks that fill up. They need root and loop mounts."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from pathlib import Path

import pytest

# FS_IOC_SHUTDOWN with FS_SHUTDOWN_FLAGS_NOLOGFLUSH: from now on every write fails, and nothing that was not synced will
# be there at the next mount.
SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def must(*command: str) -> None:
    done = run(*command)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"


def unmount(place: Path) -> None:
    """Also when somebody still has a file open there: then the name goes now, the rest with the last of them."""
    if os.path.ismount(place) and run("umount", str(place)).returncode:
        run("umount", "-l", str(place))


class Disk:
    """An ext4 file system in an image file, mounted at `place`. Use as a context."""

    def __init__(self, base: Path, mib: int, name: str = "disk") -> None:
        self.image = base / f"{name}.img"
        self.place = base / name
        self.place.mkdir()
        with self.image.open("wb") as file:
            file.truncate(mib << 20)
        must("mkfs.ext4", "-q", "-F", "-m", "0", str(self.image))

    def __enter__(self) -> Disk:
        self.mount()
        return self

    def __exit__(self, *exc: object) -> None:
        unmount(self.place)
        self.image.unlink()

    def mount(self) -> None:
        # A long commit interval: the journal does not run ahead of the syncs asked for.
        must("mount", "-o", "loop,commit=300", str(self.image), str(self.place))

    def unmount(self) -> None:
        must("umount", str(self.place))

    def pull_plug(self) -> None:
        """What was not synced is lost; until it is mounted anew all writes fail."""
        fd = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(fd)


class Tmpfs:
    """A file system in memory of a given size, mounted at `place`. Use as a context."""

    def __init__(self, base: Path, mib: int, name: str = "tmpfs") -> None:
        self.mib = mib
        self.place = base / name
        self.place.mkdir()

    def __enter__(self) -> Tmpfs:
        must("mount", "-t", "tmpfs", "-o", f"size={self.mib}m", "none", str(self.place))
        return self

    def __exit__(self, *exc: object) -> None:
        unmount(self.place)


def missing(base: Path) -> str | None:
    """Why these tests cannot run here; None when they can."""
    if os.geteuid() != 0:
        return "mounting needs root"
    try:
        with Disk(base, 8, "probe") as disk:
            disk.pull_plug()
    except (AssertionError, OSError) as err:
        return f"no loop mounts, or no shutdown of them, here: {err}"
    return None


def require(base: Path) -> None:
    why = missing(base)
    if why:
        print(f"skipped: {why}")
        pytest.skip(why)
