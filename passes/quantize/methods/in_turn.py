"""Columns of a weight are rounded one after another, and those that are left make up for it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Columns whose effect on those behind the block is computed at once.
_BLOCK = 128


def factor(moments: Tensor, damping: float) -> Tensor:
    """U with U^T U = H^-1, float64.

    Args:
        moments: float64 [..., in, in], symmetric; H is this plus ``damping`` times the mean of its
            diagonal.
        damping: above 0.
    """
    mean = moments.diagonal(dim1=-2, dim2=-1).mean(-1)
    # Where all inputs are 0, nothing is said about the weight: to nearest.
    added = torch.where(mean > 0, damping * mean, torch.ones_like(mean))
    eye = torch.eye(moments.shape[-1], dtype=torch.float64)
    damped = moments + eye * added[..., None, None]
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    found: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return found


def rounded_in_turn(
    weight: Tensor, factor: Tensor, rounded: Callable[[Tensor, int], Tensor]
) -> Tensor:
    """The rounded columns, in the order in which they are given.

    Frantar et al., GPTQ (2023), algorithm 1: with U the factor, column i is rounded, and column
    j > i becomes w_j - (w_i - Q(w_i)) U_ij / U_ii.

    Args:
        weight: float64 [..., out, in].
        factor: float64 [..., in, in].
        rounded: gives a column, [..., out], on its grid, which its place may decide.
    """
    left, made = weight.clone(), torch.empty_like(weight)
    for start in range(0, weight.shape[-1], _BLOCK):
        stop = min(start + _BLOCK, weight.shape[-1])
        errors = torch.empty_like(left[..., start:stop])
        for i in range(start, stop):
            made[..., i] = rounded(left[..., i], i)
            error = (left[..., i] - made[..., i]) / factor[..., i, i, None]
            left[..., i:stop] -= error[..., None] * factor[..., i, None, i:stop]
            errors[..., i - start] = error
        left[..., stop:] -= errors @ factor[..., start:stop, stop:]
    return made
