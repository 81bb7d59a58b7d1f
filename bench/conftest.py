"""One course for the whole run, and its tables at the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import race


@pytest.fixture(scope="session")
def course(pytestconfig: pytest.Config) -> Iterator[race.Course]:
    made = race.Course(race.HOME)
    pytestconfig.stash[COURSE] = made
    yield made
    made.clean()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test of a row runs its whole race: no time is too long for the long run."""
    for item in items:
        if Path(item.path).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.timeout(0))


COURSE = pytest.StashKey[race.Course]()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    made = config.stash.get(COURSE, None)
    if made is None or not made.results:
        return
    out = terminalreporter
    out.section("races")
    out.write_line(race.machine())
    out.write_line(
        "rate: median [worst..best]; ratio: of medians [worst over best..best over worst]; CPU of all threads"
    )
    for result in made.results.values():
        out.write_line("")
        for line in result.table():
            out.write_line(line)
    missed = [row for row, result in made.results.items() if result.met() is False]
    out.write_line("")
    out.write_line(f"goals missed: {'; '.join(missed)}" if missed else "no goal missed")
