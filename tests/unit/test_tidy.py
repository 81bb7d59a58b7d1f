"""The tree keeps its own rules: imports point one way, pure modules stay pure, nothing is left marked as undone."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVER = ROOT / "server" / "jscore_server"
PURE = (
    *("raft/core.py", "raft/state.py", "raft/election.py", "raft/follower.py", "raft/leader.py", "raft/reads.py"),
    *("raft/change.py", "raft/members.py", "raft/progress.py", "raft/bootstrap.py", "raft/messages.py"),
    *("jetstream/meta.py", "jetstream/placement.py"),
    *("jetstream/models.py", "jetstream/errors.py", "jetstream/decode.py", "config/lexer.py", "config/parser.py"),
)
IMPURE = {"asyncio", "socket", "time", "random", "os", "threading", "select", "subprocess"}
# A package may import those on its right; the daemon's own modules may import everything.
ALLOWED = {
    "raft": {"raft"},
    "protocol": {"protocol"},
    "config": {"config"},
    "dataplane": {"dataplane"},
    "jetstream": {"jetstream", "cluster", "raft", "dataplane", "protocol"},
    "transport": {"transport", "dataplane", "protocol", "config"},
    "cluster": {"cluster", "transport", "raft", "dataplane", "protocol", "config"},
    "monitoring": {"monitoring", "jetstream", "cluster", "raft", "protocol", "dataplane", "config"},
    "system": {"system", "monitoring", "jetstream", "cluster", "raft", "protocol", "dataplane", "config"},
}
LONGEST_FUNCTION = 120


def python_files() -> list[Path]:
    folders = ("jscore", "server", "tests", "bench")
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")) if "build" not in path.parts]


def own_text() -> list[Path]:
    c_files = [path for pattern in ("*.c", "*.h") for path in sorted((ROOT / "csrc").rglob(pattern))]
    return [*python_files(), *c_files, *sorted((ROOT / "jscore").glob("*.pyx"))]


def imported(path: Path) -> set[str]:
    """Absolute module names a file imports, relative ones resolved."""
    package = ["jscore_server", *path.relative_to(SERVER).parts[:-1]] if path.is_relative_to(SERVER) else []
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            names.add(".".join([*base, *([node.module] if node.module else [])]))
    return names


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_import_no_clock_socket_or_disk(name: str) -> None:
    path = SERVER / name
    assert path.exists(), f"{name} moved: move it here too"
    assert not {module.split(".")[0] for module in imported(path)} & IMPURE


def test_imports_point_one_way() -> None:
    wrong = []
    for package, allowed in ALLOWED.items():
        for path in sorted((SERVER / package).rglob("*.py")):
            for module in imported(path):
                parts = module.split(".")
                if parts[0] == "jscore_server" and len(parts) > 1 and parts[1] in ALLOWED and parts[1] not in allowed:
                    wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert not wrong


def test_nothing_is_left_marked_as_undone() -> None:
    marker = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
    assert not [str(path) for path in own_text() if marker.search(path.read_text(errors="replace"))]


def test_functions_stay_readable() -> None:
    long = []
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name} has {lines} lines")
    assert not long
