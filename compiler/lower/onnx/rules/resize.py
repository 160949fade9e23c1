"""Resizing images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from strop.compiler.ir.nodes import dtype_of, same_size, shape_of, static_int
from strop.compiler.lower.onnx.emitter import Emitter
from strop.compiler.lower.onnx.refusal import NotLowered
from strop.compiler.lower.onnx.table import lowers

aten = torch.ops.aten
# Factors that are multiples of this are exact in float32, and so is their product with any size.
EXACT = 1 / 64


@lowers(aten.upsample_nearest1d.vec, aten.upsample_nearest2d.vec, aten.upsample_nearest3d.vec)
def upsample_nearest(on: Emitter, x: Any, size: Any, scales: Any) -> Any:
    """One ``Resize`` where it rounds as torch does, else rows and columns by their index.

    torch multiplies by the inverse of the factor and rounds down, ONNX Runtime divides by the
    factor: they meet everywhere for powers of two only.
    """
    count = len(shape_of(x)) - 2
    pairs = list(zip(shape_of(x)[2:], shape_of(on.node)[2:]))
    factors = [_power_of_two(*pair, _at(scales, i)) for i, pair in enumerate(pairs)]
    if dtype_of(x) == torch.float32 and None not in factors:
        return _resize(on, x, factors, mode="nearest", **NEAREST)
    value = on.value(x)
    for axis in range(count):
        before, after = pairs[axis]
        if not same_size(before, after) or _at(scales, axis) is not None:
            index = _nearest_index(on, before, after, _at(scales, axis))
            value = on.op("Gather", value, index, axis=axis + 2)
    return value


NEAREST = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


def _at(scales: Any, axis: int) -> float | None:
    return None if scales is None else scales[axis]


def _power_of_two(before: Any, after: Any, scale: float | None) -> float | None:
    """The factor by which an axis grows, if it is 1, 2, 4, … at every size."""
    if scale is None:
        if same_size(before, after):
            return 1.0
        old, new = static_int(before), static_int(after)
        scale = new / old if old and new and new % old == 0 else 0.0
    whole = int(scale)
    return float(whole) if whole == scale and whole > 0 and whole & (whole - 1) == 0 else None


def _nearest_index(on: Emitter, before: Any, after: Any, scale: float | None) -> Any:
    """``floor(i * (before / after))`` in float32, as torch computes it, within the axis.

    Where the size stays, torch takes every element once, whatever the factor.
    """
    zero, one = (on.constant(n, torch.float32) for n in (0, 1))
    old, new = (on.cast(on.size(size), torch.float32) for size in (before, after))
    places = on.op("Range", zero, on.op("Squeeze", new), one)
    if scale is not None:
        step = on.constant(np.float32(1.0 / scale), torch.float32)
        step = on.op("Where", on.op("Equal", old, new), one, step)
    else:
        step = on.op("Div", old, new)
    index = on.cast(on.op("Floor", on.op("Mul", places, step)), torch.int64)
    return on.op("Min", index, on.op("Sub", on.size(before), on.constant([1])))


@lowers(aten.upsample_linear1d.vec, aten.upsample_bilinear2d.vec, aten.upsample_trilinear3d.vec)
def upsample_linear(on: Emitter, x: Any, size: Any, corners: bool, scales: Any) -> Any:
    factors = None if scales is None or corners else _between_sizes(on, x, scales)
    return _interpolated(on, x, corners, factors, mode="linear")


def _between_sizes(on: Emitter, x: Any, scales: list[float]) -> list[float]:
    """The factors; 1 where one leaves the size, at which torch keeps the axis as it is.

    Raises:
        NotLowered: that depends on the size. From a factor of 1.5 on it holds for a size of 1
            alone, and of one element all that is between is the same.
    """
    axes = list(zip(shape_of(x)[2:], shape_of(on.node)[2:], scales))
    if any(1 < scale < 1.5 and static_int(before) is None for before, _, scale in axes):
        raise NotLowered("at some sizes torch keeps the axis as it is")
    return [1.0 if same_size(before, after) else scale for before, after, scale in axes]


@lowers(aten.upsample_bicubic2d.vec)
def upsample_cubic(on: Emitter, x: Any, size: Any, corners: bool, scales: Any) -> Any:
    return _interpolated(on, x, corners, scales, mode="cubic", cubic_coeff_a=-0.75)


def _interpolated(on: Emitter, x: Any, corners: bool, scales: Any, **attributes: Any) -> Any:
    """torch samples by the given factor, by the ratio of sizes without one.

    Raises:
        NotLowered: a factor is not exact in float32, in which the runtime computes the new size.
    """
    if corners:
        return _resize(on, x, None, coordinate_transformation_mode="align_corners", **attributes)
    if scales is not None and any(s % EXACT for s in scales):
        raise NotLowered("the runtime would round the factor")
    return _resize(on, x, scales, coordinate_transformation_mode="half_pixel", **attributes)


def _resize(on: Emitter, x: Any, factors: Any, **attributes: Any) -> Any:
    """By factors for the spatial axes, or to the sizes of the result."""
    if factors is None:
        return on.op(
            "Resize", on.value(x), None, None, on.shape(list(shape_of(on.node))), **attributes
        )
    scales = on.constant([1.0, 1.0, *factors], torch.float32)
    return on.op("Resize", on.value(x), None, scales, **attributes)
