"""Batches of the user's: any number of passes over them, with what the loss wants beside."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from strop.compiler.frontend.streams import Stream, stream
from strop.compiler.util.errors import UsageError

X, Y = torch.ones(2, 3), torch.tensor([0, 1])
BATCH = {"labels": Y, "x": X}


class Again:
    """Can be passed over again, and is no list."""

    def __iter__(self) -> Any:
        return iter([BATCH, BATCH])


@pytest.mark.parametrize(
    "source", [[BATCH, BATCH], (BATCH, BATCH), Again(), lambda: iter([BATCH, BATCH])]
)
def test_every_kind_of_source_gives_the_same_batches_each_time(source: Any) -> None:
    batches = Stream(source, ("x",), "train")
    for _ in range(2):
        assert [list(batch) for batch in batches] == [["x", "labels"]] * 2


def test_batches_by_position_are_named() -> None:
    assert [list(b) for b in Stream([(X, Y)], ("x", "y"), "calibration")] == [["x", "y"]]


def test_none_is_no_stream() -> None:
    assert stream(None, ("x",), "train") is None


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (iter([BATCH]), "train is list_iterator, which is exhausted after one pass over it"),
        ((b for b in [BATCH]), "train is generator, which is exhausted after one pass over it"),
        (3, "train is int; give a list of batches"),
        (BATCH, "train is dict; give a list of batches"),
    ],
)
def test_what_cannot_be_passed_over_again_is_refused_at_once(source: Any, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        Stream(source, ("x",), "train")


def once() -> Any:
    given = iter([BATCH])
    return lambda: given


def broken() -> Any:
    yield BATCH
    raise ValueError("the file is gone")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ([], "train gives no batch"),
        ([X], "train[0] is Tensor; a batch is a mapping with the inputs (x)"),
        ([BATCH, {"labels": Y}], "train[1] has labels; it lacks 'x'"),
        ([{"x": [1.0]}], "train[0]['x'] is list, not a tensor"),
        ([BATCH | {"labels": "no"}], "train[0]['labels'] is str, not a tensor"),
        (broken, "train raised ValueError: the file is gone"),
        ([(X, Y)], "train[0] is tuple"),
    ],
)
def test_a_wrong_batch_is_a_sentence(source: Any, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        list(Stream(source, ("x",), "train"))


def test_a_function_that_gives_one_iterator_for_ever_is_told() -> None:
    batches = Stream(once(), ("x",), "train")
    assert len(list(batches)) == 1
    with pytest.raises(UsageError, match="it is exhausted after one pass: return a new iterator"):
        list(batches)


def test_batches_of_a_list_can_be_asked_for_by_place() -> None:
    batches = stream([BATCH, (X,), {"labels": Y}], ("x",), "train")
    assert isinstance(batches, Sequence) and len(batches) == 3
    assert list(batches[0]) == ["x", "labels"] and list(batches[1]) == ["x"]
    with pytest.raises(UsageError, match=re.escape("train[2] has labels; it lacks 'x'")):
        batches[2]
    for source in (Again(), lambda: [BATCH]):
        assert not isinstance(stream(source, ("x",), "train"), Sequence)
