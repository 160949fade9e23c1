"""Symmetric matrices as L D Lᵀ, where D has blocks of one or two rows.

J. R. Bunch and L. Kaufman, Some stable methods for calculating inertia and solving symmetric
linear systems (1977); stored as LAPACK's ``sytf2`` and ``sytrs`` have it, for the lower triangle:
a negative pivot stands for a row of a block of two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from strop.compiler.lower.onnx.formulas.matrices import numbered, picked, swapped, zeros
from strop.compiler.lower.onnx.formulas.registry import formula
from strop.compiler.lower.onnx.formulas.repeat import repeat
from strop.compiler.lower.onnx.formulas.symmetric import mirrored

aten = torch.ops.aten
# Bunch and Kaufman's threshold: an element smaller than this share of another is no pivot.
_RATIO = (1 + math.sqrt(17)) / 8


def _at(x: Tensor, row: Tensor) -> Tensor:
    """A row of each matrix, by its number, int64 [..., 1, 1]."""
    return x.gather(-2, row.expand(*x.shape[:-2], 1, x.shape[-1]))


@dataclass(frozen=True)
class _Pivot:
    """The pivot of a step; each [..., 1, 1].

    Attributes:
        row: the row and column to bring to the place of the pivot; int64.
        double: whether the pivot is a block of two rows, and this row the second.
        none: whether all that is left of the column is 0.
    """

    row: Tensor
    double: Tensor
    none: Tensor


def _pivot(x: Tensor, k: Tensor) -> _Pivot:
    rows = numbered(x, -2)
    column = picked(x, -1, k).abs()
    here = picked(column, -2, k)
    below = torch.where(rows > k, column, 0.0)
    largest, other = below.amax(-2, keepdim=True), below.argmax(-2, keepdim=True)
    other = torch.where(largest > 0, other, k)
    row = _at(x, other).abs()
    columns = numbered(x, -1)
    beside = torch.where((columns >= k) & (columns != other), row, 0.0).amax(-1, keepdim=True)
    own = row.gather(-1, other)
    good = (here >= _RATIO * largest) | (here * beside >= _RATIO * largest * largest)
    single = good | (own >= _RATIO * beside)
    return _Pivot(torch.where(good, k, other), ~single, (here == 0) & (largest == 0))


def _factors(x: Tensor, k: Tensor, pivot: _Pivot) -> tuple[Tensor, Tensor]:
    """Columns k and k + 1 of L below the pivot; the second is 0 where the pivot is one row."""
    rows = numbered(x, -2)
    following = (k + 1).clamp(max=x.shape[-1] - 1)
    one, two = picked(x, -1, k), picked(x, -1, following)
    a, b, c = picked(one, -2, k), picked(one, -2, following), picked(two, -2, following)
    single = torch.where((rows > k) & ~pivot.none, one / a, 0.0)
    # Divided by b first, as LAPACK does: a c - b² would overflow.
    scale = 1 / (b * ((c / b) * (a / b) - 1))
    below = rows > following
    first = torch.where(below, scale * ((c / b) * one - two), 0.0)
    second = torch.where(below & pivot.double, scale * ((a / b) * two - one), 0.0)
    return torch.where(pivot.double, first, single), second


def _eliminate(k: Tensor, state: Sequence[Tensor], fixed: Sequence[Tensor]) -> list[Tensor]:
    """A step; it does nothing in the second row of a pivot of two."""
    x, factor, pivots, failed, done = state
    rows, columns = numbered(x, -2), numbered(x, -1)
    pivot = _pivot(x, k)
    following = (k + 1).clamp(max=x.shape[-1] - 1)
    place = torch.where(pivot.double, following, k)
    moved = swapped(swapped(x, place, pivot.row).mT, place, pivot.row)
    first, second = _factors(moved, k, pivot)
    one, two = picked(moved, -1, k), picked(moved, -1, following)
    left = moved - first * one.mT - second * two.mT
    block = torch.where(pivot.double, rows <= following, rows <= k)
    kept = torch.where(columns == k, torch.where(block, one, first), factor)
    also = pivot.double & (columns == following)
    kept = torch.where(also, torch.where(block, two, second), kept)
    told = torch.where(pivot.double, -1 - pivot.row, pivot.row + 1).to(torch.int32)
    named = torch.where((columns == k) | also, told, pivots)
    zero = torch.where(pivot.none & (failed == 0), (k + 1).to(torch.int32), failed)
    return [
        torch.where(done, x, left),
        torch.where(done, factor, kept),
        torch.where(done, pivots, named),
        torch.where(done, failed, zero),
        pivot.double & ~done,
    ]


@formula(aten.linalg_ldl_factor_ex.default)
def ldl_factor(
    x: Tensor, *, hermitian: bool = False, check_errors: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """L and D in one matrix, the pivots, and the first of them that is 0, counted from 1."""
    if 0 in x.shape:
        return x.clone(), zeros(x, x.shape[-1], dtype=torch.int32), zeros(x, dtype=torch.int32)
    number, flag = zeros(x, 1, 1, dtype=torch.int32), zeros(x, 1, 1, dtype=torch.bool)
    pivots = zeros(x, 1, x.shape[-1], dtype=torch.int32)
    start = [mirrored(x, "L"), torch.zeros_like(x), pivots, number, flag]
    _, factor, pivots, failed, _ = repeat(_eliminate, x.shape[-1], start)
    return factor.tril(), pivots.squeeze(-2), failed.squeeze(-1).squeeze(-1)


def _blocks(pivots: Tensor) -> tuple[Tensor, Tensor]:
    """Whether each row is the first, or the second, of a block of two; [..., 1, rows]."""
    double = (pivots < 0).unsqueeze(-2)
    odd = double.to(torch.int64).cumsum(-1) % 2 == 1
    return double & odd, double & ~odd


def _down(k: Tensor, state: Sequence[Tensor], fixed: Sequence[Tensor]) -> list[Tensor]:
    """Rows k, and k + 1 of a block of two, by L and D; nothing in the second row of a block."""
    x, (factor, pivots, starts, ends) = state[0], fixed
    rows, following = numbered(x, -2), (k + 1).clamp(max=x.shape[-2] - 1)
    double, done = picked(starts, -1, k), picked(ends, -1, k)
    other = picked(pivots, -1, k)
    moved = swapped(x, torch.where(double, following, k), other)
    one, two = picked(factor, -1, k), picked(factor, -1, following)
    a, b, c = picked(one, -2, k), picked(one, -2, following), picked(two, -2, following)
    first, second = picked(moved, -2, k), picked(moved, -2, following)
    below = rows > torch.where(double, following, k)
    left = moved - one * first - torch.where(double, two * second, 0.0)
    scale = 1 / (b * ((c / b) * (a / b) - 1))
    upper = torch.where(double, scale * ((c / b) * first - second), first / a)
    lower = torch.where(double & (rows == following), scale * ((a / b) * second - first), moved)
    solved = torch.where(below, left, torch.where(rows == k, upper, lower))
    return [torch.where(done, x, solved)]


def _up(k: Tensor, state: Sequence[Tensor], fixed: Sequence[Tensor]) -> list[Tensor]:
    """Rows k, and k - 1 of a block of two, by Lᵀ; nothing in the first row of a block."""
    x, (factor, pivots, starts, ends) = state[0], fixed
    k = x.shape[-2] - 1 - k
    rows, previous = numbered(x, -2), (k - 1).clamp(min=0)
    double, done = picked(ends, -1, k), picked(starts, -1, k)
    below = torch.where(rows > k, x, 0.0)
    one = picked(factor, -1, k).mT @ below
    two = picked(factor, -1, previous).mT @ below
    solved = torch.where(double & (rows == previous), x - two, x)
    solved = torch.where(rows == k, x - one, solved)
    return [torch.where(done, x, swapped(solved, k, picked(pivots, -1, k)))]


@formula(aten.linalg_ldl_solve.default)
def ldl_solve(factor: Tensor, pivots: Tensor, b: Tensor, *, hermitian: bool = False) -> Tensor:
    """``x`` of ``L D Lᵀ x = b``."""
    batch = torch.broadcast_shapes(factor.shape[:-2], b.shape[:-2])
    places = pivots.to(torch.int64).abs().unsqueeze(-2) - 1
    fixed = [factor, places, *_blocks(pivots)]
    count = factor.shape[-1]
    half = repeat(_down, count, [b.expand(*batch, *b.shape[-2:])], fixed)
    return repeat(_up, count, half, fixed)[0]
