"""The configuration check (`-t`) comes to nats-server's verdict, and to its digest where the file is good."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from jscore_server import cli

from .config_corpus import cases, environment, lay_out, peer_says

PEER = shutil.which("nats-server", path=f"{os.environ.get('PATH', '')}:{Path.home() / 'go/bin'}")
SHARE = 11
"""With the peer, one case in so many is asked anew: all take minutes. A prime, so that no key is always left out."""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    lay_out(tmp_path)
    monkeypatch.chdir(tmp_path)
    # The whole of it: a variable that the tester happens to have is a variable of every file.
    for name in os.environ.keys() - {"PYTEST_CURRENT_TEST"}:
        monkeypatch.delenv(name)
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    return tmp_path


def ours(text, folder, capsys):
    path = folder / "x.conf"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    capsys.readouterr()
    good = cli.main(["-t", "-c", "x.conf"]) == 0
    return good, capsys.readouterr().err


def test_the_corpus_is_large_and_has_both_kinds():
    marks = [mark for mark, _ in cases()]
    assert len(marks) > 5000
    assert min(marks.count("+"), marks.count("-")) > 1000
    assert marks.count("?") == 0


def test_the_verdicts_are_those_on_record(folder, capsys):
    wrong = []
    for mark, text in cases():
        good, said = ours(text, folder, capsys)
        if mark != "!" and good != (mark == "+"):
            wrong.append(f"{mark} {text!r}: {said}")
    assert not wrong, "\n".join(wrong[:20])


@pytest.mark.skipif(PEER is None, reason="nats-server is not on PATH")
def test_the_peer_says_so(folder, capsys):
    found = cases()
    asked = [(mark, text) for mark, text in found[::SHARE] if mark != "!"]
    wrong = []
    for (_, text), (good, said) in zip(asked, peer_says(PEER, [text for _, text in asked], folder), strict=True):
        here, shown = ours(text, folder, capsys)
        digest = re.findall(r"sha256:\w+", said)
        if here != good or (good and re.findall(r"sha256:\w+", shown) != digest):
            wrong.append(f"{text!r}\nnats-server: {said}\nours: {shown}")
    assert not wrong, "\n".join(wrong[:20])
