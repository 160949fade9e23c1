"""Residual sums and norms: what is joined, and each condition for which they are left apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from program_tools import assert_left_alone, body, counts, program_of, same_numbers
from torch import Tensor

from strop.passes.fuse.residual import FuseResiduals

SEED = torch.Generator().manual_seed(0)
X, Y = torch.randn(2, 3, 8, generator=SEED), torch.randn(2, 3, 8, generator=SEED)
WEIGHT = torch.randn(8, generator=SEED)


def _used_before(x: Tensor, y: Tensor) -> Tensor:
    total = x + y
    scaled = total.tanh()
    return F.layer_norm(total, (8,)) + scaled


LEFT_ALONE: dict[str, tuple[Callable[..., Any], Tensor]] = {
    "different shapes, a number": (lambda x, y: F.layer_norm(x + 1.0, (8,)), Y),
    "different shapes, whole numbers": (lambda x, y: F.layer_norm(x + y, (8,)), Y.int()),
    "different shapes, whole numbers first": (lambda x, y: F.layer_norm(y + x, (8,)), Y.int()),
    "several axes": (lambda x, y: F.layer_norm(x + y, (3, 8)), Y),
    "used before the norm": (_used_before, Y),
}


@pytest.mark.parametrize("case", LEFT_ALONE)
def test_other_sums_and_norms_are_left_alone(case: str) -> None:
    model, other = LEFT_ALONE[case]
    assert_left_alone(FuseResiduals(), program_of(model, X, other), case.partition(",")[0])


def test_a_sum_with_a_factor_is_no_residual() -> None:
    before = program_of(lambda x, y: F.layer_norm(torch.add(x, y, alpha=2), (8,)), X, Y)
    result = FuseResiduals().run(before)
    assert not result.modified
    same_numbers(before, result.program, X, Y, tolerance=0)


def test_a_difference_is_no_residual() -> None:
    assert (
        not FuseResiduals().run(program_of(lambda x, y: F.layer_norm(x - y, (8,)), X, Y)).modified
    )


@pytest.mark.parametrize("eps", [None, 1e-3])
def test_a_sum_before_an_rms_norm_is_joined_with_its_epsilon(eps: float | None) -> None:
    def model(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x + y, (8,), weight, eps)

    before = program_of(model, X, Y, weight=WEIGHT)
    result = FuseResiduals().run(before)
    assert counts(result) == {"residual-norm": 1}
    assert "strop.skip_rms_norm(%input_0, %input_1, @weight" in body(result.program)
    # So small that epsilon counts.
    same_numbers(before, result.program, X * 1e-3, Y * 1e-3, tolerance=1e-6)
    same_numbers(before, result.program, X * 1e-2, Y * 1e-2, tolerance=1e-6)


def test_a_layer_norm_keeps_its_epsilon_and_the_sum_is_returned_only_where_it_is_read() -> None:
    before = program_of(lambda x, y: F.layer_norm(x + y, (8,), eps=0.5), X, Y)
    result = FuseResiduals().run(before)
    assert body(result.program).count("py.getitem") == 1
    same_numbers(before, result.program, X, Y, tolerance=1e-6)
