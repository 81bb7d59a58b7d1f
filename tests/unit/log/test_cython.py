"""A Cython module compiled against the installed declarations uses a log without Python objects on the way."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import jscore

USER = """
# cython: language_level=3
from jscore._log cimport Log, Message
from jscore.jsc_mlog cimport jsc_span

def fill(Log log not None, int n):
    cdef jsc_span subject = jsc_span(b"a.b", 3), none = jsc_span(NULL, 0), data = jsc_span(b"payload", 7)
    cdef int i
    for i in range(n):
        log.put(&subject, &none, &data, 0)
    log.settle(True)
    cdef Message last = log.fetch(n)
    return last.m.seq, last.m.r.data[:last.m.r.data_len]
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_a_cython_module_appends_and_reads(tmp_path):
    pytest.importorskip("Cython")
    (tmp_path / "user.pyx").write_text(USER)
    root = Path(jscore.__file__).parents[1]
    subprocess.run([sys.executable, "-m", "cython", "-I", root, "user.pyx"], cwd=tmp_path, check=True)
    includes = [f"-I{place}" for place in (jscore.get_include(), sysconfig.get_path("include"))]
    subprocess.run(["cc", "-O0", "-shared", "-fPIC", *includes, "user.c", "-o", "user.so"], cwd=tmp_path, check=True)
    spec = importlib.util.spec_from_file_location("user", tmp_path / "user.so")
    assert spec is not None
    assert spec.loader is not None
    user = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(user)
    with jscore.open(tmp_path / "log") as log:
        assert user.fill(log, 1000) == (1000, b"payload")
        assert log.durable == 1000
        assert log.subject("a.*").count() == 1000
