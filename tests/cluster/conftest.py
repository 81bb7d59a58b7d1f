"""Real daemons for tests: each fixture ends, by id, every process it started, and keeps logs when a test failed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import harness


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):  # type: ignore[no-untyped-def]
    report = (yield).get_result()
    if report.when == "call" and report.failed:
        for lab in getattr(item, "labs", []):
            for server in lab.servers:
                report.sections.append((f"end of {server.log}", server.tail(25)))


@pytest.fixture
def lab(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[harness.Lab]:
    """A place to start servers in; stops whatever runs when the test ends, however it ends."""
    place = harness.Lab(tmp_path)
    request.node.labs = [place]
    try:
        yield place
    finally:
        place.close()


@pytest.fixture
def cluster(lab: harness.Lab) -> harness.Cluster:
    """The example's three servers, ready."""
    return lab.ready_example()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[harness.Cluster]:
    """The example's three servers, ready, for all tests of a module that kill nothing."""
    place = harness.Lab(tmp_path_factory.mktemp("shared"))
    try:
        yield place.ready_example()
    finally:
        place.close()
