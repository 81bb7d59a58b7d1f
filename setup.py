"""Builds the two extension modules; everything else is in pyproject.toml.

JSCORE_DEBUG=1 builds without optimisation and with debug assertions, JSCORE_SANITIZE=1 with ASan and UBSan.
"""

import os
from glob import glob

from Cython.Build import cythonize
from setuptools import Extension, setup

CFLAGS = ["-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Wno-unused-parameter", "-fvisibility=hidden"]
LDFLAGS = ["-pthread"]
if os.environ.get("JSCORE_DEBUG"):
    CFLAGS += ["-O0", "-DJSC_DEBUG"]
if os.environ.get("JSCORE_SANITIZE"):
    CFLAGS += ["-fsanitize=address,undefined", "-fno-omit-frame-pointer"]
    LDFLAGS += ["-fsanitize=address,undefined"]


def sources(*parts: str) -> list[str]:
    return [name for part in parts for name in sorted(glob(f"csrc/{part}/*.c"))]


def extension(name: str, pyx: str, *parts: str) -> Extension:
    return Extension(
        name,
        [pyx, *sources(*parts)],
        include_dirs=["csrc"],
        depends=glob("csrc/*/*.h"),
        extra_compile_args=[*CFLAGS, "-pthread"],
        extra_link_args=LDFLAGS,
    )


# The engine has no state outside its handles, so each module carries its own copy and they share handles freely.
setup(
    ext_modules=cythonize(
        [
            extension("jscore._log", "jscore/_log.pyx", "base", "log"),
            extension(
                "jscore_server.dataplane._plane",
                "server/jscore_server/dataplane/_plane.pyx",
                *("base", "log", "wire", "stream"),
            ),
        ],
        include_path=[".", "server"],
        compiler_directives={"language_level": "3", "embedsignature": True},
    ),
)
