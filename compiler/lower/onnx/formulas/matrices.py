"""Rows, columns and masks of matrices, for the formulas of linear algebra."""

from __future__ import annotations

import torch
from torch import Tensor


def picked(x: Tensor, dim: int, k: Tensor) -> Tensor:
    """The k-th slice along an axis, which stays with size 1; k is int64 []."""
    return x.index_select(dim, k.view(1))


def numbered(x: Tensor, dim: int) -> Tensor:
    """0, 1, 2, … along the last axis but one (rows, as a column) or the last one (columns)."""
    numbers = torch.arange(x.shape[dim], device=x.device)
    return numbers.unsqueeze(-1) if dim == -2 else numbers


def swapped(x: Tensor, row: Tensor, other: Tensor) -> Tensor:
    """Matrices with one row and another, int64 [] or [..., 1, 1], exchanged."""
    rows = numbered(x, -2)
    order = torch.where(rows == row, other, torch.where(rows == other, row, rows))
    return x.gather(-2, order.expand(x.shape))


def diagonal(x: Tensor) -> Tensor:
    """The elements of the diagonal; [..., the smaller of rows and columns]."""
    count = torch.sym_min(x.shape[-2], x.shape[-1])
    place = torch.arange(count, device=x.device).unsqueeze(-1)
    return x[..., :count, :].gather(-1, place.expand(*x.shape[:-2], count, 1)).squeeze(-1)


def zeros(x: Tensor, *sizes: int | torch.SymInt, dtype: torch.dtype | None = None) -> Tensor:
    """Zeros of shape [*batch axes of x, *sizes]."""
    return x.new_zeros((*x.shape[:-2], *sizes), dtype=dtype or x.dtype)


def identity(x: Tensor, size: int | torch.SymInt) -> Tensor:
    """A unit matrix for every matrix of x."""
    one = torch.eye(size, dtype=x.dtype, device=x.device)
    return one.expand(*x.shape[:-2], size, size)


def require_fixed(x: Tensor) -> None:
    """Check that matrices have fixed sizes.

    Raises:
        NotImplementedError: rows or columns are dynamic.
    """
    if not all(isinstance(size, int) for size in x.shape[-2:]):
        raise NotImplementedError("of matrices whose rows and columns are fixed only")
