"""The log library against its model: a share of what `python -m tests.model` runs by the million."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .player import play
from .program import WORD_MAX, Program

words = st.integers(0, WORD_MAX)
# Word by word, so that what fails is shortened to the operations that matter.
short_programs = st.builds(
    Program, words, st.integers(0, 200).flatmap(lambda n: st.lists(words, min_size=n, max_size=n))
)
long_programs = st.builds(Program.of_seed, st.integers(0, (1 << 64) - 1), st.integers(500, 3000))
# In CI a bounded share; JSCORE_MODEL_SHARE multiplies it.
SHARE = int(os.environ.get("JSCORE_MODEL_SHARE", "1"))


@settings(max_examples=150 * SHARE)
@given(short_programs)
def test_short_programs(program: Program) -> None:
    play(program)


@pytest.mark.timeout(600 * SHARE)
@settings(max_examples=30 * SHARE)
@given(long_programs)
def test_long_programs(program: Program) -> None:
    play(program)
