"""Triangular systems, by substitution: one step a row, as in LAPACK's ``trtrs``."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from strop.compiler.lower.onnx.formulas.matrices import numbered, picked
from strop.compiler.lower.onnx.formulas.registry import formula
from strop.compiler.lower.onnx.formulas.repeat import repeat

aten = torch.ops.aten


def _eliminated(k: Tensor, left: Tensor, a: Tensor, upper: bool, unit: bool) -> Tensor:
    """Solve for row k, and subtract its contribution from the rows that are not solved yet."""
    rows = numbered(left, -2)
    found, column = picked(left, -2, k), picked(a, -1, k)
    if not unit:
        found = found / picked(column, -2, k)
    waiting = rows < k if upper else rows > k
    return torch.where(waiting, left - column * found, torch.where(rows == k, found, left))


def _down(k: Tensor, state: Sequence[Tensor], fixed: Sequence[Tensor]) -> list[Tensor]:
    return [_eliminated(k, state[0], fixed[0], upper=False, unit=False)]


def _down_unit(k: Tensor, state: Sequence[Tensor], fixed: Sequence[Tensor]) -> list[Tensor]:
    return [_eliminated(k, state[0], fixed[0], upper=False, unit=True)]


def _up(k: Tensor, state: Sequence[Tensor], fixed: Sequence[Tensor]) -> list[Tensor]:
    last = fixed[0].shape[-1] - 1
    return [_eliminated(last - k, state[0], fixed[0], upper=True, unit=False)]


def _up_unit(k: Tensor, state: Sequence[Tensor], fixed: Sequence[Tensor]) -> list[Tensor]:
    last = fixed[0].shape[-1] - 1
    return [_eliminated(last - k, state[0], fixed[0], upper=True, unit=True)]


_STEPS = {(False, False): _down, (False, True): _down_unit, (True, False): _up,
          (True, True): _up_unit}  # fmt: skip


def substituted(a: Tensor, b: Tensor, upper: bool, unit: bool = False) -> Tensor:
    """``x`` of ``a x = b``; of ``a`` only the triangle is read, without the diagonal if unit.

    Args:
        a: [..., n, n].
        b: [..., n, columns].
    """
    batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return repeat(_STEPS[upper, unit], a.shape[-1], [b.expand(*batch, *b.shape[-2:])], [a])[0]


@formula(aten.linalg_solve_triangular.default)
def solve_triangular(
    a: Tensor, b: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Tensor:
    """``x`` of ``a x = b``; of ``x a = b`` by transposing both."""
    if left:
        return substituted(a, b, upper, unitriangular)
    return substituted(a.mT, b.mT, not upper, unitriangular).mT


@formula(aten.triangular_solve.default)
def triangular_solve(
    b: Tensor, a: Tensor, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> tuple[Tensor, Tensor]:
    """The older form of the same, which gives the matrix back."""
    matrix = a.mT if transpose else a
    return substituted(matrix, b, upper != transpose, unitriangular), a.clone()
