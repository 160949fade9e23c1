"""Gaussian elimination with row exchanges, and what is computed from it.

One step a column, as in G. H. Golub and C. F. Van Loan, Matrix Computations, 4th edition, 3.4.1.
Where torch raises an error for a singular matrix, the division by its pivot of 0 gives NaN or
infinities.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from strop.compiler.lower.onnx.formulas.matrices import (
    diagonal,
    identity,
    numbered,
    picked,
    swapped,
)
from strop.compiler.lower.onnx.formulas.registry import formula
from strop.compiler.lower.onnx.formulas.repeat import repeat
from strop.compiler.lower.onnx.formulas.triangular import substituted

aten = torch.ops.aten


def _cleared(k: Tensor, x: Tensor) -> Tensor:
    """Subtract multiples of row k from the rows below; the factors are stored in their zeros."""
    column, row = picked(x, -1, k), picked(x, -2, k)
    pivot = picked(column, -2, k)
    below, right = numbered(x, -2) > k, numbered(x, -1) > k
    factor = torch.where(below & (pivot != 0), column / pivot, 0.0)
    left = x - factor * torch.where(right, row, 0.0)
    return torch.where(below & (numbered(x, -1) == k), factor, left)


def _with_pivot(k: Tensor, state: Sequence[Tensor], fixed: Sequence[Tensor]) -> list[Tensor]:
    x, pivots = state
    size = torch.where(numbered(x, -2) >= k, picked(x, -1, k).abs(), -1.0)
    largest = size.argmax(-2, keepdim=True)
    here = torch.arange(pivots.shape[-1], device=x.device) == k
    pivots = torch.where(here, largest.squeeze(-1).to(torch.int32) + 1, pivots)
    return [_cleared(k, swapped(x, k, largest)), pivots]


def _without_pivot(k: Tensor, state: Sequence[Tensor], fixed: Sequence[Tensor]) -> list[Tensor]:
    return [_cleared(k, state[0])]


def _lu(x: Tensor, pivot: bool = True) -> tuple[Tensor, Tensor]:
    """L below and U on and above the diagonal; the row exchanged with each, int32, from 1."""
    count = torch.sym_min(x.shape[-2], x.shape[-1])
    here = torch.arange(1, count + 1, dtype=torch.int32, device=x.device)
    pivots = here.expand(*x.shape[:-2], count)
    if not pivot:
        return repeat(_without_pivot, count, [x])[0], pivots.clone()
    lu, pivots = repeat(_with_pivot, count, [x, pivots])
    return lu, pivots


def _first_zero(lu: Tensor) -> Tensor:
    """The place of the first pivot that is 0, counted from 1; 0 where there is none; int32."""
    zero = diagonal(lu) == 0
    last = zero.shape[-1]
    places = torch.arange(1, last + 1, dtype=torch.int32, device=lu.device)
    # One more place, since the minimum of an empty tensor is an error.
    beyond = torch.full((*lu.shape[:-2], 1), last + 1, dtype=torch.int32, device=lu.device)
    first = torch.cat([torch.where(zero, places, beyond), beyond], -1).amin(-1)
    return torch.where(first > last, torch.zeros_like(first), first)


def _exchange(k: Tensor, state: Sequence[Tensor], fixed: Sequence[Tensor]) -> list[Tensor]:
    return [swapped(state[0], k, _other(fixed[0], k))]


def _exchange_back(k: Tensor, state: Sequence[Tensor], fixed: Sequence[Tensor]) -> list[Tensor]:
    k = fixed[0].shape[-1] - 1 - k
    return [swapped(state[0], k, _other(fixed[0], k))]


def _other(pivots: Tensor, k: Tensor) -> Tensor:
    return picked(pivots, -1, k).unsqueeze(-1).to(torch.int64) - 1


def _exchanged(x: Tensor, pivots: Tensor, back: bool = False) -> Tensor:
    """The rows of x in the order of the elimination, or put back from it."""
    return repeat(_exchange_back if back else _exchange, pivots.shape[-1], [x], [pivots])[0]


def _by_lu(lu: Tensor, pivots: Tensor, b: Tensor, adjoint: bool = False) -> Tensor:
    """``x`` of ``a x = b``, or of ``aᵀ x = b``, from the elimination of ``a``."""
    batch = torch.broadcast_shapes(lu.shape[:-2], b.shape[:-2])
    b = b.expand(*batch, *b.shape[-2:])
    if adjoint:
        half = substituted(lu.mT, b, upper=False)
        return _exchanged(substituted(lu.mT, half, upper=True, unit=True), pivots, back=True)
    half = substituted(lu, _exchanged(b, pivots), upper=False, unit=True)
    return substituted(lu, half, upper=True)


def _sign(pivots: Tensor) -> Tensor:
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


@formula(aten.lu_unpack.default)
def lu_unpack(
    lu: Tensor, pivots: Tensor, unpack_data: bool = True, unpack_pivots: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """P, L and U of ``x = P L U``; factors that are not asked for are empty."""
    rows, columns = lu.shape[-2:]
    nothing = lu.new_zeros(0)
    permutation, lower, upper = nothing, nothing, nothing
    if unpack_data:
        count = torch.sym_min(rows, columns)
        one = torch.eye(rows, count, dtype=lu.dtype, device=lu.device)
        lower, upper = lu[..., :, :count].tril(-1) + one, lu[..., :count, :].triu()
    if unpack_pivots:
        permutation = _exchanged(identity(lu, rows), pivots, back=True)
    return permutation, lower, upper


@formula(aten.linalg_lu.default)
def lu_parts(x: Tensor, *, pivot: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """P, L and U of ``x = P L U``; without row exchanges P has no elements."""
    lu, pivots = _lu(x, pivot)
    return lu_unpack(lu, pivots, unpack_pivots=pivot)


@formula(aten.linalg_lu_solve.default)
def lu_solve(
    lu: Tensor, pivots: Tensor, b: Tensor, *, left: bool = True, adjoint: bool = False
) -> Tensor:
    """``x`` of ``a x = b``; of ``x a = b`` by transposing both."""
    if left:
        return _by_lu(lu, pivots, b, adjoint)
    return _by_lu(lu, pivots, b.mT, not adjoint).mT


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
    lu, pivots = _lu(x)
    return _by_lu(lu, pivots, identity(x, x.shape[-1])), _first_zero(lu)


@formula(aten._linalg_det.default)
def determinant(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The product of the diagonal of U, with the sign of the exchanges; torch transposes."""
    lu, pivots = _lu(x.mT)
    return diagonal(lu).prod(-1) * _sign(pivots), lu, pivots


@formula(aten._linalg_slogdet.default)
def log_determinant(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Its sign, and the logarithm of its size; torch transposes."""
    lu, pivots = _lu(x.mT)
    pivot = diagonal(lu)
    return pivot.sign().prod(-1) * _sign(pivots), pivot.abs().log().sum(-1), lu, pivots
