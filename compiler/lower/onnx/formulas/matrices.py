"""Linear algebra of small matrices, unrolled: one step a row, batches at once.

The number of rows must be fixed, since it is the number of steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from strop.compiler.lower.onnx.formulas.registry import formula

aten = torch.ops.aten
# A step takes about ten operators.
MOST_ROWS = 16


def _steps(x: Tensor) -> int:
    """The number of rows.

    Raises:
        NotImplementedError: it is dynamic, or there are too many.
    """
    rows = x.shape[-2]
    if not isinstance(rows, int) or rows > MOST_ROWS:
        raise NotImplementedError(f"of fixed matrices of up to {MOST_ROWS} rows only")
    return rows


def _first_zero(lu: Tensor) -> Tensor:
    """The place of the first pivot that is 0, counted from 1; 0 where there is none; int32."""
    zero = lu.diagonal(dim1=-2, dim2=-1) == 0
    place = zero.to(torch.int32).argmax(-1) + 1
    return torch.where(zero.any(-1), place, 0).to(torch.int32)


def _swapped(x: Tensor, row: int, other: Tensor) -> Tensor:
    """Matrices with one row and another, given for each, exchanged."""
    rows = torch.arange(x.shape[-2], device=x.device)
    place = other.unsqueeze(-1)
    order = torch.where(rows == row, place, torch.where(rows == place, row, rows))
    return x.gather(-2, order.unsqueeze(-1).expand(x.shape))


def _lu(x: Tensor, pivot: bool = True) -> tuple[Tensor, Tensor]:
    """Gaussian elimination with row exchanges.

    Returns:
        L below and U on and above the diagonal; the row exchanged with each, counted from 1.
    """
    count = min(_steps(x), int(x.shape[-1]))
    rows, columns = (torch.arange(x.shape[i], device=x.device) for i in (-2, -1))
    pivots = []
    for k in range(count):
        largest = x[..., k:, k].abs().argmax(-1) * int(pivot) + k
        pivots.append(largest + 1)
        x = _swapped(x, k, largest)
        divisor = x[..., k : k + 1, k]
        factor = torch.where((rows > k) & (divisor != 0), x[..., :, k] / divisor, 0.0)
        row = torch.where(columns > k, x[..., k, :], 0.0)
        x = x - factor.unsqueeze(-1) * row.unsqueeze(-2)
        below = (rows > k).unsqueeze(-1) & (columns == k)
        x = torch.where(below, factor.unsqueeze(-1), x)
    return x, torch.stack(pivots, -1).to(torch.int32)


def _substituted(a: Tensor, b: Tensor, upper: bool, unit: bool) -> Tensor:
    """``x`` of ``a x = b`` for triangular ``a``, row after row."""
    count = _steps(a)
    found: list[Tensor] = []
    order = list(range(count))[:: -1 if upper else 1]
    for step, k in enumerate(order):
        value = b[..., k, :]
        for j, known in zip(order[:step], found):
            value = value - a[..., k, j].unsqueeze(-1) * known
        found.append(value if unit else value / a[..., k, k].unsqueeze(-1))
    return torch.stack(found[:: -1 if upper else 1], -2)


def _by_lu(lu: Tensor, pivots: Tensor, b: Tensor) -> Tensor:
    batch = torch.broadcast_shapes(lu.shape[:-2], b.shape[:-2])
    b = b.expand(*batch, *b.shape[-2:])
    for k in range(_steps(lu)):
        b = _swapped(b, k, (pivots[..., k].long() - 1).expand(batch))
    return _substituted(lu, _substituted(lu, b, upper=False, unit=True), upper=True, unit=False)


def _exchanges(pivots: Tensor) -> Tensor:
    """-1 for an odd number of exchanges, else 1."""
    here = torch.arange(1, pivots.shape[-1] + 1, device=pivots.device)
    return 1 - 2 * ((pivots != here).sum(-1) % 2)


@formula(aten.linalg_lu_factor_ex.default)
def lu_factor(
    x: Tensor, *, pivot: bool = True, check_errors: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Both triangles in one matrix, the exchanges, and the first pivot that is 0."""
    lu, pivots = _lu(x, pivot)
    return lu, pivots, _first_zero(lu)


@formula(aten.linalg_lu_solve.default)
def lu_solve(
    lu: Tensor, pivots: Tensor, b: Tensor, *, left: bool = True, adjoint: bool = False
) -> Tensor:
    """From the left only."""
    if adjoint or not left:
        raise NotImplementedError("from the left only")
    return _by_lu(lu, pivots, b)


@formula(aten._linalg_solve_ex.default)
def solve(
    a: Tensor, b: Tensor, *, left: bool = True, check_errors: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``x`` of ``a x = b``, or of ``x a = b`` by transposing both."""
    vector = b.dim() == 1 or (a.dim() - 1 == b.dim() and b.shape == a.shape[:-1])
    right = b.unsqueeze(-1) if vector else b
    lu, pivots = _lu(a if left else a.mT)
    x = _by_lu(lu, pivots, right if left else right.mT)
    x = x if left else x.mT
    return x.squeeze(-1) if vector else x, lu, pivots, _first_zero(lu)


@formula(aten.linalg_inv_ex.default)
def inverse(x: Tensor, *, check_errors: bool = False) -> tuple[Tensor, Tensor]:
    """``y`` of ``x y = 1``."""
    one = torch.eye(_steps(x), dtype=x.dtype, device=x.device)
    lu, pivots = _lu(x)
    return _by_lu(lu, pivots, one), _first_zero(lu)


@formula(aten._linalg_det.default)
def determinant(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The product of the diagonal of U, with the sign of the exchanges; torch transposes."""
    lu, pivots = _lu(x.mT)
    return lu.diagonal(dim1=-2, dim2=-1).prod(-1) * _exchanges(pivots), lu, pivots


@formula(aten._linalg_slogdet.default)
def log_determinant(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Its sign, and the logarithm of its size; torch transposes."""
    lu, pivots = _lu(x.mT)
    diagonal = lu.diagonal(dim1=-2, dim2=-1)
    return diagonal.sign().prod(-1) * _exchanges(pivots), diagonal.abs().log().sum(-1), lu, pivots


@formula(aten.linalg_solve_triangular.default)
def solve_triangular(
    a: Tensor, b: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Tensor:
    """By substitution; from the right by transposing both."""
    if left:
        return _substituted(a, b, upper, unitriangular)
    return _substituted(a.mT, b.mT, not upper, unitriangular).mT


@formula(aten.triangular_solve.default)
def triangular_solve(
    b: Tensor, a: Tensor, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> tuple[Tensor, Tensor]:
    """The older form of the same, which gives the matrix back."""
    matrix = a.mT if transpose else a
    return _substituted(matrix, b, upper != transpose, unitriangular), a.clone()


def _cholesky(x: Tensor) -> Tensor:
    """L of ``L Lᵀ = x``, column after column."""
    count = _steps(x)
    columns: list[Tensor] = []
    rows = torch.arange(count, device=x.device)
    for k in range(count):
        column = x[..., :, k]
        for known in columns:
            column = column - known * known[..., k : k + 1]
        column = column / column[..., k : k + 1].sqrt()
        columns.append(torch.where(rows >= k, column, 0.0))
    return torch.stack(columns, -1)


@formula(aten.cholesky.default)
def cholesky(x: Tensor, upper: bool = False) -> Tensor:
    """The lower factor, or its transpose."""
    return _cholesky(x.mT).mT if upper else _cholesky(x)


@formula(aten.cholesky_solve.default)
def cholesky_solve(b: Tensor, factor: Tensor, upper: bool = False) -> Tensor:
    """``x`` of ``L Lᵀ x = b``."""
    lower = factor.mT if upper else factor
    return _substituted(lower.mT, _substituted(lower, b, False, False), True, False)


@formula(aten.cholesky_inverse.default)
def cholesky_inverse(factor: Tensor, upper: bool = False) -> Tensor:
    """The inverse of ``L Lᵀ``."""
    one = torch.eye(_steps(factor), dtype=factor.dtype, device=factor.device)
    return cholesky_solve(one.expand(factor.shape), factor, upper)
