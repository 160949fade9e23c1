"""What torch.export cannot do at first: ways round it, and sentences where there is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from file_tools import File
from torch import Tensor

from strop.compiler.util.errors import UnsupportedError

x = torch.randn
ROWS = {"x": {0: "n"}}
COLUMNS = {"x": {1: "n"}}


@pytest.mark.parametrize(
    ("function", "axes", "sizes"),
    [
        (lambda x: torch.vmap(lambda a: a * 2 + a.sum())(x), ROWS, [(1, 6), (4, 6)]),
        (lambda x: torch.vmap(torch.dot, (0, None))(x, x[0]), ROWS, [(3, 6)]),
        (
            lambda x: F.pad(x, (0, -x.shape[1] % 4)).reshape(x.shape[0], -1, 4).sum(1),
            COLUMNS,
            [(2, 7), (2, 8), (2, 1)],
        ),
        (lambda x: torch.from_numpy(x.numpy() * 2), {}, [(2, 10)]),
        (lambda x: x @ x.mT + x, {"x": {0: "n", 1: "n"}}, [(3, 3), (1, 1)]),
    ],
    ids=["vmap", "vmap of a product", "a remainder", "NumPy", "axes of one dim"],
)
def test_ways_round(
    function: Callable[..., Any], axes: dict[str, Any], sizes: list[tuple[int, ...]]
) -> None:
    shape = [6 if i in axes.get("x", {}) else s for i, s in enumerate(sizes[0])]
    file = File(function, (x(shape),), axes)
    for size in sizes:
        file.agrees(x(size))


def in_blocks(x: Tensor, size: int) -> Tensor:
    """Attention within blocks of a sequence that is filled up to a multiple of their size."""
    length = x.shape[1]
    filled = F.pad(x, (0, 0, 0, size - length % size)) if length % size else x
    count = filled.shape[1] // size
    blocks = filled.view(x.shape[0], count, size, x.shape[2])
    real = F.pad(torch.ones_like(x[..., 0]), (0, filled.shape[1] - length))
    hidden = (1 - real.view(x.shape[0], count, 1, size)) * -1e9
    scores = torch.einsum("bnqd,bnkd->bnqk", blocks, blocks) + hidden
    mixed = torch.einsum("bnqk,bnkd->bnqd", scores.softmax(-1), blocks)
    return mixed.reshape(x.shape[0], count * size, x.shape[2])[:, :length]


@pytest.mark.parametrize(
    "size",
    [pytest.param(4, id="three blocks"), pytest.param(16, id="one block", marks=pytest.mark.slow)],
)
def test_blocks_of_a_sequence_of_any_length(size: int) -> None:
    axes = {"x": {0: ("batch", 1, 2), 1: ("seq", 1, 35)}}
    file = File(lambda x: in_blocks(x, size), (x(2, 9, 4),), axes)
    for length in range(1, 36):
        file.agrees(x(1 + length % 2, length, 4))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x[3:-4:3] * 2 + x.sum(0),
        lambda x: x[: x.shape[0] // 6] * x[:1],
        lambda x: F.pairwise_distance(x[: x.shape[0] // 6], x[:1]),
    ],
    ids=["a slice", "a fraction", "an operator without a row"],
)
def test_a_length_of_one_as_traced_is_no_constant(function: Callable[..., Any]) -> None:
    file = File(function, (x(10, 3),), {"x": {0: ("n", 8, 40)}})
    for length in range(8, 41):
        file.agrees(x(length, 3))


@pytest.mark.parametrize(
    ("low", "length", "others"), [(4, 10, "n = 10"), (4, 6, "n = 6"), (5, 5, "other sizes")]
)
def test_another_path_at_a_length_of_one_is_found(low: int, length: int, others: str) -> None:
    def squeezes(x: Tensor) -> Tensor:
        return x[: (x.shape[0] + 2) // 6].squeeze(0) * 2

    words = f"differently at n = {low} than at {others} at .*: %squeeze has another shape there"
    with pytest.raises(UnsupportedError, match=words):
        File(squeezes, (x(length, 3),), {"x": {0: ("n", low, 40)}})


def test_a_number_from_a_tensor() -> None:
    def lengths(x: Tensor, y: Tensor) -> Tensor:
        return torch.arange(int(y.max())) * x[0]

    file = File(lengths, (x(4), torch.tensor([3, 2])))
    file.agrees(x(4), torch.tensor([1, 7]))


def by_remainder(x: Tensor) -> Tensor:
    rows = x.shape[0]
    return x[:, : x.shape[1] % (rows - 1) + 1] if rows > 1 else x


def decides(x: Tensor) -> Tensor:
    return x if x.sum() > 0 else -x


def makes_a_constant(x: Tensor) -> Tensor:
    return torch.vmap(torch.mv, (None, 0))(torch.ones(2, 6), x)


def halves(x: Tensor) -> Tensor:
    return x.reshape(x.shape[0] // 2, 2, -1)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (by_remainder, "behaves differently at n = 1"),
        (decides, "decides on a tensor's value"),
        (halves, "n = 1"),
        (makes_a_constant, "inside torch.vmap"),
    ],
)
def test_sentences_where_nothing_helps(function: Callable[..., Any], words: str) -> None:
    with pytest.raises(UnsupportedError, match=words) as caught:
        File(function, (x(4, 6),), {"x": {0: ("n", 1, 9)}})
    text = str(caught.value)
    assert not any(word in text for word in ("TORCH_LOGS", "unhinted", "draft_export", "Dim("))
