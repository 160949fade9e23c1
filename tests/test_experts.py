"""Mixtures of experts: right for any routing, empty experts included."""

from __future__ import annotations

import pytest
import torch
from file_tools import File
from torch import Tensor

grouped = torch.ops.strop.grouped_matmul
WEIGHT = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
ROUTINGS = ([1, 3, 4, 6], [0, 0, 6, 6], [6, 6, 6, 6], [0, 0, 0, 6], [0, 0, 0, 0], [2, 2, 3, 4])


def by_slices(x: Tensor, ends: list[int]) -> Tensor:
    """The meaning, group by group."""
    result, start = torch.zeros(len(x), 5), 0
    for matrix, end in zip(WEIGHT, ends):
        result[start:end] = x[start:end] @ matrix
        start = end
    return result


@pytest.mark.parametrize("ends", ROUTINGS, ids=str)
def test_each_group_meets_its_matrix(ends: list[int]) -> None:
    x = torch.randn(6, 3)
    for dtype in (torch.int32, torch.int64):
        torch.testing.assert_close(
            grouped(x, WEIGHT, torch.tensor(ends, dtype=dtype)), by_slices(x, ends)
        )


class Layer(torch.nn.Module):
    """One layer of experts, chosen by the largest of four numbers of each row."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(WEIGHT)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        expert, order = y.argmax(-1).sort()
        ends = torch.bincount(expert, minlength=4)[:4].cumsum(0)
        return grouped(x[order], self.weight, ends.int())


def test_the_file_is_right_for_any_routing() -> None:
    rows = {"x": {0: "rows"}, "y": {0: "rows"}}
    file = File(Layer(), (torch.randn(6, 3), torch.randn(6, 4)), rows)
    for count in (1, 2, 9):
        for chosen in range(4):
            scores = torch.randn(count, 4)
            file.agrees(torch.randn(count, 3), scores)
            scores[:, chosen] = 9.0
            file.agrees(torch.randn(count, 3), scores)
