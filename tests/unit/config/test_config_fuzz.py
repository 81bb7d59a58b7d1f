"""Whatever a file holds, reading it ends soon and in nothing but a ConfigError."""

from __future__ import annotations

import os
import random
import resource
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jscore_server.config.lexer import ConfigError
from jscore_server.config.load import load
from jscore_server.config.parser import digest, parse
from jscore_server.config.schema import options_from

CORPUS = Path(__file__).resolve().parents[2] / "differential" / "configs.txt"
PIECES = [
    *"{}[]()=:;,#/$'\"\\ \t\n\r.-0123456789kmgtpe",
    *("include x.conf\n", "$A", "$LOOP", "A: ", "//", "\\x4", "true", "2006-01-02T15:04:05Z", "\udc80", "\x85", "(("),
    *("cluster {", "tls {", "accounts {", "authorization { users: [", "jetstream {", "mappings {", "9" * 30, "1e"),
    *("{{split(1,", "\n)\n", "%zz"),
]  # fmt: skip
SECONDS = float(os.environ.get("JSCORE_FUZZ_SECONDS", "0"))  # goes on for so long
SEED = time.time_ns() if SECONDS else 20
MOST_SECONDS = 10.0  # of processor time for one file: far above what the slowest takes, far below an attack's


def read(text):
    """Reads a text as `-t` does; True if it is good."""
    files = {"x.conf": text, "y.conf": "include x.conf\n"}

    def opened(path):
        name = path.rpartition("/")[2]
        if name not in files:
            raise FileNotFoundError(2, "No such file or directory")
        return files[name]

    began = time.process_time()
    faults = None
    try:
        tree = parse(text, "x.conf", read=opened, environ={"A": "[ $B ]", "B": "5", "LOOP": "{ a: $LOOP }"})
        digest(tree)
        options_from(tree, "x.conf")
    except ConfigError as err:
        faults = err.errors
    assert time.process_time() - began < MOST_SECONDS, repr(text[:200])
    assert faults is None or (faults and all("\n" not in line for line in faults))
    return faults is None


def written():
    lines = CORPUS.read_text(encoding="utf-8").split("\n")
    return [line[2:].replace("⏎", "\n").replace("⇥", "\t") for line in lines if line[1:2] == " " and line[0] in "+-!"]


def mutated(chance, texts):
    text = chance.choice(texts)
    for _ in range(chance.randint(1, 6)):
        at = chance.randint(0, len(text))
        match chance.randint(0, 4):
            case 0:
                text = text[:at] + chance.choice(PIECES) + text[at:]
            case 1:
                text = text[:at] + text[at + chance.randint(1, 5) :]
            case 2:
                other = chance.choice(texts)
                text = text[:at] + other[chance.randint(0, len(other)) :]
            case 3:
                text = text[:at] + text[at : at + 20] * chance.randint(2, 40) + text[at:]
            case 4:
                text = text[:at] + chr(chance.choice((0, 1, 10, 34, 39, 0x7F, 0x2028, 0xDCFF, 0x10FFFF))) + text[at:]
    return text


def test_mutations_of_the_corpus():
    chance, texts, good = random.Random(SEED), written(), 0
    rounds, end = 0, time.monotonic() + SECONDS
    while rounds < 20_000 or time.monotonic() < end:
        good += read(mutated(chance, texts))
        rounds += 1
    print(f"{rounds:,} mutations from seed {SEED}, {good:,} good")
    assert good > 100  # not all of them were stopped at their first character


@settings(max_examples=500)
@given(st.lists(st.sampled_from(PIECES), max_size=60).map("".join))
def test_pieces_in_any_order(text):
    read(text)


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_any_bytes(data):
    read(data.decode("utf-8", "surrogateescape"))


HUGE = {
    "maps within maps": "a { " * 200_000,
    "arrays within arrays": "a: " + "[" * 200_000,
    "braces around all": "{" * 200_000,
    "braces that close nothing": "}" * 200_000,
    "a long number": "port: " + "9" * 1_000_000,
    "a long float": "port: 1." + "9" * 1_000_000,
    "a long string": "server_name: '" + "a" * 5_000_000 + "'",
    "a long block": "server_name: (" + "\n a" * 1_000_000 + "\n)\n",
    "an open block": "server_name: (" + "\n )" * 300_000,
    "escapes": 'server_name: "' + "\\x41" * 300_000 + '"',
    "slashes": "port: 1 " + "/ " * 300_000,
    "comments": "#" * 1_000_000 + "\n//" * 300_000,
    "keys": "".join(f"k{n}: {n}\n" for n in range(100_000)),
    "a long key": "k" * 1_000_000 + ": 1",
    "values that double": "a0: [x, x]\n" + "".join(f"a{n}: [$a{n - 1}, $a{n - 1}]\n" for n in range(1, 64)),
    "maps that double": "a0 { x: y }\n" + "".join(f"a{n} {{ p: $a{n - 1}, q: $a{n - 1} }}\n" for n in range(1, 64)),
    "includes of itself": "include x.conf\n" * 3,
    "includes in a ring": "include y.conf\n",
    "a variable of itself": "port: $LOOP",
    "a long duration": "ping_interval: '" + "1h" * 300_000 + "'",
    "a long address": "listen: '" + ":" * 300_000 + "'",
    "a long URL": "cluster { routes: ['nats://" + "a%41" * 200_000 + "'] }",
    "a long mapping": "mappings { a: '" + "{{split(1,-)}}." * 50_000 + "' }",
    "many mappings": "mappings { " + "".join(f"a{n}: b\n" for n in range(50_000)) + "}",
    "a long subject": "cluster { permissions { import: '" + "a." * 300_000 + "b' } }",
    "many users": "authorization { users: [" + "{user: a, password: b}\n" * 50_000 + "] }",
    "many imports": "accounts { A { imports: [" + "{stream: {account: B, subject: a}}\n" * 20_000 + "] }, B {} }",
    "unknown keys": "".join(f"unknown_key_{n}: 1\n" for n in range(3_000)),
}


@pytest.mark.parametrize("text", HUGE.values(), ids=HUGE.keys())
def test_bounds_of_time_and_memory(text):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read(text)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB


def test_a_file_too_large_is_refused_unread(tmp_path):
    path = tmp_path / "x.conf"
    with open(path, "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ConfigError, match="too large"):
        load(str(path), {})
