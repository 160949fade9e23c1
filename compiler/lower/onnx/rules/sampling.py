"""Sampling volumes at points between their elements."""

from __future__ import annotations

from typing import Any

import torch

from strop.compiler.ir.nodes import dtype_of
from strop.compiler.lower.onnx.emitter import Emitter
from strop.compiler.lower.onnx.refusal import NotLowered
from strop.compiler.lower.onnx.table import lowers

aten = torch.ops.aten
_MODES = ("linear", "nearest")
_PADDINGS = ("zeros", "border", "reflection")
# In units of half the volume: far outside, and within int32 as a position in any volume.
_FAR = 1e4


@lowers(aten.grid_sampler_3d.default)
def grid_sampler_3d(
    on: Emitter, x: Any, grid: Any, mode: int, padding: int, align_corners: bool
) -> Any:
    """[batch, channels, d, h, w] at points [batch, D, H, W, 3], each from -1 to 1."""
    how, around = _MODES[mode], _PADDINGS[padding]
    if (how, around) == ("nearest", "reflection"):
        raise NotLowered("the nearest elements of a reflected volume, which the runtime rounds")
    points, dtype = on.value(grid), dtype_of(grid)
    near = points if around == "reflection" else _within_reach(on, points, dtype)
    sampled = on.op(
        "GridSample", on.value(x), near,
        mode=how, padding_mode=around, align_corners=int(align_corners),
    )  # fmt: skip
    if around != "zeros":
        return sampled
    # A product with zero is NaN where a point is infinite or NaN: such a point lies nowhere.
    nowhere = on.op("IsNaN", on.op("Mul", points, on.constant(0, dtype)))
    mask = on.op("ReduceMax", on.cast(nowhere, torch.int32), on.constant([-1]), keepdims=0)
    mask = on.op("Unsqueeze", on.cast(mask, torch.bool), on.constant([1]))
    return on.op("Where", mask, on.constant(0, dtype), sampled)


def _within_reach(on: Emitter, points: Any, dtype: torch.dtype) -> Any:
    """Points whose positions the runtime can hold; torch takes NaN for one beyond the end."""
    low, high = on.constant(-_FAR, dtype), on.constant(_FAR, dtype)
    near = on.op("Min", on.op("Max", points, low), high)
    return on.op("Where", on.op("IsNaN", points), high, near)
