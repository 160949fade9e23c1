"""Tensors made from nothing: where every element is alike, a size follows from its use."""

from __future__ import annotations

import torch

from strop.passes.prune.axes import Axes, Call, fresh
from strop.passes.prune.rules.registry import rule

aten = torch.ops.aten


@rule(
    aten.zeros.default,
    aten.ones.default,
    aten.full.default,
    aten.new_zeros.default,
    aten.new_ones.default,
    aten.new_full.default,
)
def filled(call: Call) -> list[Axes]:
    """One value everywhere."""
    made = fresh(call.shape())
    call.bake_sizes("size", made)
    return [made]


@rule(aten.arange.default, aten.arange.start, aten.arange.start_step)
def counted(call: Call) -> list[Axes]:
    """Each position holds its number."""
    made = fresh(call.shape())
    call.freeze("it holds the numbers of positions", made)
    return [made]
