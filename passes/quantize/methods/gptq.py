"""GPTQ: columns are rounded one after another, and those that are left make up for the error."""

from __future__ import annotations

import torch
from torch import Tensor

from strop.passes.quantize.methods.in_turn import factor, rounded_in_turn
from strop.passes.quantize.methods.layer import Chosen, Layer, Settings
from strop.passes.quantize.methods.squared_error import least_error


def gptq(layer: Layer, settings: Settings) -> Chosen:
    """Whole numbers with a small squared error of the outputs on the data.

    Columns are rounded in turn, by the second moments of the inputs. Scales are chosen before, so
    that columns may be taken in any order: those with the least error of outputs in which each
    group errs alone.
    """
    assert layer.moments is not None
    moments = layer.moments.mean()
    scale, zero = least_error(layer, layer.blocks())
    order = torch.arange(len(moments))
    if settings.act_order:
        order = torch.sort(moments.diagonal(), descending=True, stable=True).indices
    found = factor(moments[order][:, order], settings.damping)
    grids = _Grids(layer, scale, zero)
    weight = layer.weight[:, order].double()
    made = rounded_in_turn(weight, found, lambda column, i: grids.rounded(column, int(order[i])))
    rounded = torch.empty_like(layer.weight)
    rounded[:, order] = made.float()
    return Chosen(scale, zero, rounded)


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
