"""Cholesky's factor of positive definite matrices, and what is computed from it.

One step a column, as in G. H. Golub and C. F. Van Loan, Matrix Computations, 4th edition, 4.2.5.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from strop.compiler.lower.onnx.formulas.matrices import identity, numbered, picked, zeros
from strop.compiler.lower.onnx.formulas.registry import formula
from strop.compiler.lower.onnx.formulas.repeat import repeat
from strop.compiler.lower.onnx.formulas.triangular import substituted

aten = torch.ops.aten


def _column(k: Tensor, state: Sequence[Tensor], fixed: Sequence[Tensor]) -> list[Tensor]:
    """Column k of the factor, unless an earlier one had a pivot that is not positive."""
    factor, rest, failed = state
    column = picked(rest, -1, k)
    pivot = picked(column, -2, k)
    rows, here = numbered(rest, -2), numbered(rest, -1) == k
    going = (failed == 0).unsqueeze(-1).unsqueeze(-1)
    good = going & (pivot > 0)
    column = torch.where(rows >= k, column / pivot.sqrt(), 0.0)
    # LAPACK stores a pivot that is not positive as it is.
    kept = torch.where(here & (rows == k) & going, pivot, factor)
    place = torch.where(going & ~good, k + 1, 0).squeeze(-1).squeeze(-1)
    return [
        torch.where(here & good, column, kept),
        rest - column * column.mT,
        failed + place.to(torch.int32),
    ]


def _factored(x: Tensor) -> tuple[Tensor, Tensor]:
    """L of ``L Lᵀ = x``, and the first column at which it failed, counted from 1, or 0; int32."""
    failed = zeros(x, dtype=torch.int32)
    factor, _, failed = repeat(_column, x.shape[-1], [x.tril(), x, failed])
    return factor, failed


@formula(aten.linalg_cholesky_ex.default)
def cholesky_ex(
    x: Tensor, *, upper: bool = False, check_errors: bool = False
) -> tuple[Tensor, Tensor]:
    """The lower factor, or its transpose; and where it failed."""
    factor, failed = _factored(x.mT if upper else x)
    return factor.mT if upper else factor, failed


@formula(aten.cholesky.default, aten.linalg_cholesky.default)
def cholesky(x: Tensor, upper: bool = False) -> Tensor:
    """The factor; NaN where torch raises an error, since a file cannot."""
    factor, failed = cholesky_ex(x, upper=upper)
    return torch.where((failed == 0).unsqueeze(-1).unsqueeze(-1), factor, torch.nan)


@formula(aten.cholesky_solve.default)
def cholesky_solve(b: Tensor, factor: Tensor, upper: bool = False) -> Tensor:
    """``x`` of ``L Lᵀ x = b``."""
    lower = factor.mT if upper else factor
    return substituted(lower.mT, substituted(lower, b, upper=False), upper=True)


@formula(aten.cholesky_inverse.default)
def cholesky_inverse(factor: Tensor, upper: bool = False) -> Tensor:
    """The inverse of ``L Lᵀ``."""
    return cholesky_solve(identity(factor, factor.shape[-1]), factor, upper)
