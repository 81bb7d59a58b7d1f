"""Errors carry fields, are one family, and survive pickling."""

from __future__ import annotations

import copy
import errno
import pickle

import pytest

import jscore
from jscore import errors

EXAMPLES = [
    errors.Error("text"),
    errors.NotFound("no message 5", seq=5),
    errors.Corrupt("lost", seq=5, segment=1, offset=64, first=4, last=6, first_seq=4, last_seq=5, seqs_exact=False),
    errors.FormatError("version", path="/log"),
    errors.Failed("no more writes", reason=OSError(errno.EIO, "Input/output error")),
    errors.Full("no space"),
    errors.Locked("in use", path="/log"),
    errors.OrderError("gap"),
    errors.KeyMissing("which", path="/log"),
    errors.ReadOnly("only"),
    errors.Forked("child", path="/log"),
]


def fields(err: BaseException) -> dict[str, object]:
    return {name: repr(value) for name, value in vars(err).items()}


def test_there_is_an_example_of_every_error():
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.Error)}
    assert {type(err) for err in EXAMPLES} == kinds


@pytest.mark.parametrize("err", EXAMPLES, ids=lambda err: type(err).__name__)
def test_errors_survive_pickling_and_copying_with_their_fields(err):
    err.add_note("a note")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(err, protocol))
        assert type(again) is type(err)
        assert (str(again), again.args, fields(again)) == (str(err), err.args, fields(err))
    assert fields(copy.copy(err)) == fields(err)
    assert isinstance(err, jscore.Error)


@pytest.mark.parametrize("kind", [type(err) for err in EXAMPLES])
def test_fields_are_there_when_nothing_is_known(kind):
    assert all(value is None for value in vars(kind("text")).values())


def test_errors_raised_by_a_log_can_be_pickled(tmp_path):
    with jscore.open(tmp_path / "log") as log, pytest.raises(jscore.NotFound) as caught:
        log[3]
    assert pickle.loads(pickle.dumps(caught.value)).seq == 3
