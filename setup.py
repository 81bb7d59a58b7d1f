"""Builds the extension modules; everything else is in pyproject.toml.

JSCORE_DEBUG=1 builds without optimisation and with debug assertions, JSCORE_SANITIZE=1 with ASan and UBSan.
"""

import compileall
import os
import shlex
import subprocess
import sys
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

CFLAGS = ["-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Wno-unused-parameter", "-fvisibility=hidden"]
LDFLAGS = ["-pthread"]
if os.environ.get("JSCORE_DEBUG"):
    CFLAGS += ["-O0", "-DJSC_DEBUG"]
if os.environ.get("JSCORE_SANITIZE"):
    CFLAGS += ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]
    LDFLAGS += ["-fsanitize=address,undefined"]
# Header -> its Debian package: zstd compresses sealed segments, XXH3 digests them, AES-GCM encrypts them; OpenSSL
# serves TLS; zlib compresses websocket frames.
NEEDED = {"zstd.h": "libzstd-dev", "xxhash.h": "libxxhash-dev", "openssl/ssl.h": "libssl-dev", "zlib.h": "zlib1g-dev"}


def missing_packages() -> list[str]:
    """Packages whose header the C preprocessor does not find; none when there is no compiler, whose error says more."""
    command = [*shlex.split(os.environ.get("CC", "cc")), *shlex.split(os.environ.get("CFLAGS", "")), "-E", "-"]
    packages = []
    for header, package in NEEDED.items():
        try:
            seen = subprocess.run(command, input=f"#include <{header}>\n", text=True, capture_output=True)
        except OSError:
            return []
        if seen.returncode:
            packages.append(package)
    return packages


def sources(*parts: str) -> list[str]:
    return [name for part in parts for name in sorted(glob(f"csrc/{part}/*.c"))]


def extension(name: str, pyx: str, *parts: str) -> Extension:
    return Extension(
        name,
        [pyx, *sources(*parts)],
        include_dirs=["csrc"],
        depends=glob("csrc/*/*.h"),
        libraries=["zstd", "crypto", "ssl", "z"],
        extra_compile_args=[*CFLAGS, "-pthread"],
        extra_link_args=LDFLAGS,
    )


if missing := missing_packages() if {"build_ext", "bdist_wheel", "editable_wheel", "develop"} & set(sys.argv) else []:
    sys.exit(
        f"jscore: headers are missing. On Debian or Ubuntu: apt-get install {' '.join(missing)}; "
        "elsewhere the development files of zstd, xxHash, OpenSSL and zlib."
    )

# The engine has no state outside its handles, so each module carries its own copy and they share handles freely.
setup(
    ext_modules=cythonize(
        [
            extension("jscore._log", "jscore/_log.pyx", "base", "log"),
            extension("jscore._records", "jscore/_records.pyx", "base", "log"),
            extension(
                "jscore_server.dataplane._plane",
                "server/jscore_server/dataplane/_plane.pyx",
                *("base", "log", "wire", "stream"),
            ),
        ],
        include_path=[".", "server"],
        compiler_directives={"language_level": "3", "embedsignature": True},
    ),
    options={"build_ext": {"parallel": 2}},  # the two modules side by side
)

# pip compiles what it copies, and an editable install copies nothing. Where Python may not write bytecode, as in many
# containers, each start of the server would compile all of it anew: two thirds of the time until it is ready.
if {"editable_wheel", "develop"} & set(sys.argv):
    for folder in ("jscore", "server/jscore_server"):
        compileall.compile_dir(folder, quiet=2)
