"""Orthogonal factors by Householder's reflections, in float64 as LAPACK has them.

One step a column, as in G. H. Golub and C. F. Van Loan, Matrix Computations, 4th edition, 5.1 and
5.2; signs and factors as in LAPACK's ``larfg``. A reflection is ``1 - tau v vᵀ``, where v is 0
above the diagonal and 1 on it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from strop.compiler.lower.onnx.formulas.matrices import numbered, picked, zeros
from strop.compiler.lower.onnx.formulas.registry import formula
from strop.compiler.lower.onnx.formulas.repeat import repeat

aten = torch.ops.aten


def _reflection(k: Tensor, column: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """v, tau, and what becomes of the element on the diagonal, for column k: [..., rows, 1]."""
    rows = numbered(column, -2)
    first = picked(column, -2, k)
    below = torch.where(rows > k, column, 0.0)
    rest = (below * below).sum(-2, keepdim=True)
    size = (first * first + rest).sqrt()
    left = torch.where(first < 0, size, -size)
    # A column that is 0 below the diagonal already is left as it is.
    done = rest == 0
    v = torch.where(done, 0.0, below / torch.where(done, 1.0, first - left))
    tau = torch.where(done, 0.0, (left - first) / torch.where(done, 1.0, left))
    return v + (rows == k).to(v.dtype), tau, torch.where(done, first, left)


def _annihilate(k: Tensor, state: Sequence[Tensor], fixed: Sequence[Tensor]) -> list[Tensor]:
    x, factors = state
    column, rows, columns = picked(x, -1, k), numbered(x, -2), numbered(x, -1)
    v, tau, diagonal = _reflection(k, column)
    reflected = x - torch.where(columns > k, v @ (tau * (v.mT @ x)), 0.0)
    kept = torch.where(rows > k, v, torch.where(rows == k, diagonal, column))
    here = torch.arange(factors.shape[-1], device=x.device) == k
    return [
        torch.where(columns == k, kept, reflected),
        torch.where(here, tau.squeeze(-1), factors),
    ]


def _triangular(x: Tensor) -> tuple[Tensor, Tensor]:
    """R on and above the diagonal, the reflections' v below it; and tau. In float64."""
    count = torch.sym_min(x.shape[-2], x.shape[-1])
    x = x.to(torch.float64)
    found, tau = repeat(_annihilate, count, [x, zeros(x, count)])
    return found, tau


def _reflect(k: Tensor, state: Sequence[Tensor], fixed: Sequence[Tensor]) -> list[Tensor]:
    x, (vectors, factors) = state[0], fixed
    rows = numbered(x, -2)
    v = torch.where(rows > k, picked(vectors, -1, k), 0.0) + (rows == k).to(x.dtype)
    return [x - v @ (picked(factors, -1, k).unsqueeze(-1) * (v.mT @ x))]


def _reflect_from_last(k: Tensor, state: Sequence[Tensor], fixed: Sequence[Tensor]) -> list[Tensor]:
    return _reflect(fixed[1].shape[-1] - 1 - k, state, fixed)


def _rotated(x: Tensor, vectors: Tensor, tau: Tensor, transpose: bool) -> Tensor:
    """``Q x`` or ``Qᵀ x``, where Q is the product of the reflections. In float64."""
    step = _reflect if transpose else _reflect_from_last
    fixed = [vectors.to(torch.float64), tau.to(torch.float64)]
    return repeat(step, tau.shape[-1], [x.to(torch.float64)], fixed)[0]


def _first_columns(x: Tensor, vectors: Tensor, tau: Tensor, count: int | torch.SymInt) -> Tensor:
    """The first columns of Q."""
    one = torch.eye(x.shape[-2], count, dtype=torch.float64, device=x.device)
    return _rotated(one.expand(*x.shape[:-2], *one.shape), vectors, tau, transpose=False)


def triangular_factor(x: Tensor) -> Tensor:
    """R of ``x = Q R``, for no more rows than columns of x; [..., columns, columns], float64."""
    found, _ = _triangular(x)
    return found[..., : x.shape[-1], :].triu()


def orthogonal_factors(x: Tensor) -> tuple[Tensor, Tensor]:
    """Q and R of ``x = Q R``, with as many columns and rows as the smaller size; float64."""
    found, tau = _triangular(x)
    count = torch.sym_min(x.shape[-2], x.shape[-1])
    return _first_columns(x, found, tau, count), found[..., :count, :].triu()


@formula(aten.geqrf.default)
def geqrf(x: Tensor) -> tuple[Tensor, Tensor]:
    """R with the reflections below it, and tau."""
    found, tau = _triangular(x)
    return found.to(x.dtype), tau.to(x.dtype)


@formula(aten.linalg_qr.default)
def qr(x: Tensor, mode: str = "reduced") -> tuple[Tensor, Tensor]:
    """Q and R; mode "r" gives no Q, mode "complete" a square one."""
    if mode == "complete":
        found, tau = _triangular(x)
        q, r = _first_columns(x, found, tau, x.shape[-2]), found.triu()
    elif mode == "r":
        count = torch.sym_min(x.shape[-2], x.shape[-1])
        q, r = x.new_zeros(0), _triangular(x)[0][..., :count, :].triu()
    else:
        q, r = orthogonal_factors(x)
    return q.to(x.dtype), r.to(x.dtype)


@formula(aten.linalg_householder_product.default)
def householder_product(x: Tensor, tau: Tensor) -> Tensor:
    """The first columns of the product, as many as x has."""
    return _first_columns(x, x, tau, x.shape[-1]).to(x.dtype)


@formula(aten.ormqr.default)
def ormqr(
    x: Tensor, tau: Tensor, other: Tensor, left: bool = True, transpose: bool = False
) -> Tensor:
    """``Q other`` or ``other Q``, of Q or its transpose; from the right by transposing both."""
    if left:
        return _rotated(other, x, tau, transpose).to(x.dtype)
    return _rotated(other.mT, x, tau, not transpose).mT.to(x.dtype)
