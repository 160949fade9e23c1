"""GPTQ: columns are rounded one after another, and those that are left make up for the error."""

from __future__ import annotations

import torch
from torch import Tensor

from strop.passes.quantize.methods.layer import Chosen, Layer, Settings
from strop.passes.quantize.methods.squared_error import least_error

# Columns whose effect on those behind the block is computed at once.
_BLOCK = 128


def gptq(layer: Layer, settings: Settings) -> Chosen:
    """Whole numbers with a small squared error of the outputs on the data.

    Frantar et al., GPTQ (2023), algorithm 1: with H the second moments of the inputs, plus
    ``damping`` times the mean of its diagonal, and U the upper Cholesky factor of H^-1, column i
    is rounded, and column j > i becomes w_j - (w_i - Q(w_i)) U_ij / U_ii. Scales are chosen before,
    so that columns may be taken in any order: those with the least error of outputs in which each
    group errs alone.
    """
    assert layer.moments is not None
    moments = layer.moments.mean()
    scale, zero = least_error(layer, layer.blocks())
    order = torch.arange(len(moments))
    if settings.act_order:
        order = torch.sort(moments.diagonal(), descending=True, stable=True).indices
    factor = _factor(moments[order][:, order], settings.damping)
    grids = _Grids(layer, scale, zero)
    rounded = torch.empty_like(layer.weight)
    rounded[:, order] = _rounded(layer.weight[:, order].double(), order, factor, grids).float()
    return Chosen(scale, zero, rounded)


def _factor(moments: Tensor, damping: float) -> Tensor:
    """U with U^T U = H^-1, float64."""
    mean = moments.diagonal().mean()
    # Where all inputs are 0, nothing is said about the weight: to nearest.
    damped = moments + torch.eye(len(moments), dtype=torch.float64) * (
        damping * mean if mean > 0 else 1.0
    )
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor


class _Grids:
    """Rounds columns of a weight to the grids of their groups."""

    def __init__(self, layer: Layer, scale: Tensor, zero: Tensor | None) -> None:
        self.size = layer.weight.shape[1] // layer.groups
        self.high = (1 << layer.bits) - 1
        self.scale = scale.double()
        middle = torch.full_like(scale, 1 << (layer.bits - 1))
        self.zero = (middle if zero is None else zero).double()

    def rounded(self, column: Tensor, place: int) -> Tensor:
        """A column, [out], on the grid of the group in which it has its place."""
        scale, zero = (grid[:, place // self.size] for grid in (self.scale, self.zero))
        return (((column / scale).round() + zero).clamp(0, self.high) - zero) * scale


def _rounded(weight: Tensor, places: Tensor, factor: Tensor, grids: _Grids) -> Tensor:
    """The rounded columns, in the order in which they are given."""
    left, made = weight.clone(), torch.empty_like(weight)
    for start in range(0, weight.shape[1], _BLOCK):
        block = slice(start, min(start + _BLOCK, weight.shape[1]))
        behind = slice(block.stop, None)
        errors = torch.empty_like(left[:, block])
        for i in range(block.start, block.stop):
            made[:, i] = grids.rounded(left[:, i], int(places[i]))
            error = (left[:, i] - made[:, i]) / factor[i, i]
            left[:, i : block.stop] -= error[:, None] * factor[i, i : block.stop]
            errors[:, i - start] = error
        left[:, behind] -= errors @ factor[block, behind]
    return made
