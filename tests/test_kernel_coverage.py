"""The measure of what kernels run: which figures it holds to the bound, on counts made by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from kernel_programs import GPU, random, selected
from program_tools import program_of
from torch import Tensor

from strop.bench.measures import kernel_coverage
from strop.passes.kernels.coverage import coverage, in_torch

ROWS = {0: {0: ("rows", 1, 1000)}}


def _half_in_torch(x: Tensor, weight: Tensor, other: Tensor) -> Tensor:
    return F.gelu(F.linear(x, weight)) @ other.t()


def test_shares_are_those_of_the_sizes_that_are_asked_for() -> None:
    program = program_of(
        _half_in_torch, random(2, 64), dims=ROWS, weight=random(8, 64), other=random(4, 8)
    )
    made = selected(program).program
    assert [str(node.target) for node in in_torch(made, GPU)] == ["aten.matmul.default"]
    for rows in (1, 100):
        found = coverage(made, GPU, {"rows": rows})
        fused, left = 64 * rows + 8 * 64 + 8 * rows, 8 * rows + 8 * 4 + 4 * rows
        assert found.multiply_adds == pytest.approx(8 * 64 / (8 * 64 + 4 * 8))
        assert found.moved == pytest.approx(fused / (fused + left))


def test_a_program_that_computes_nothing_is_covered() -> None:
    program = program_of(lambda x: x.reshape(-1), torch.ones(2, 3))
    assert coverage(program, GPU).multiply_adds == 1
    assert coverage(program, GPU).moved == 1


def test_only_what_kernels_are_asked_to_run_is_held_to_the_bound() -> None:
    shares = {"multiply_adds": {"a": 1.0, "b": 0.9}, "bytes": {"a": 0.96, "b": 0.99}, "torch": {}}
    found = {"a model": dict.fromkeys(kernel_coverage.RECIPES, shares)}
    missed = [figure.what for figure in kernel_coverage.figures(found) if not figure.hit]
    assert missed == [f"a model, {one}: share of multiply-adds" for one in kernel_coverage.HELD]
