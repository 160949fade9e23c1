"""The exponent and the neighbours of a float.

ONNX cannot read bits. But scaling by a power of two is exact, so a number is halved and doubled, by
fewer and fewer places, until it lies between 1/2 and 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

from strop.compiler.lower.onnx.formulas.registry import formula

aten = torch.ops.aten
# The largest step, as a power of two: half of the range of exponents.
_MOST = {torch.float64: 9, torch.float32: 6, torch.bfloat16: 6, torch.float16: 3}
Step = tuple[Tensor, int]
"""Where a step is taken, and what it adds to the exponent."""


def _normalised(size: Tensor) -> tuple[Tensor, list[Step]]:
    """A positive finite number as one in [1/2, 1), and the steps that led there."""
    steps: list[Step] = []
    places = [2**i for i in range(_MOST[size.dtype], -1, -1)]
    for place in (*places, 1):
        large = size >= 2.0 ** (place - 1)
        size = torch.where(large, size * 2.0**-place, size)
        steps.append((large, place))
    for place in (places[0], *places):  # numbers below the smallest normal one need the first twice
        small = size < 2.0**-place
        size = torch.where(small, size * 2.0**place, size)
        steps.append((small, -place))
    return size, steps


@formula(aten.frexp.Tensor)
def frexp(x: Tensor) -> tuple[Tensor, Tensor]:
    """``x = mantissa * 2 ** exponent``; zero, NaN and infinities are mantissas themselves."""
    plain = x.isfinite() & (x != 0)
    size, steps = _normalised(torch.where(plain, x.abs(), torch.ones_like(x)))
    exponent = torch.zeros_like(x, dtype=torch.int32)
    for taken, place in steps:
        exponent = exponent + taken.to(torch.int32) * place
    mantissa = torch.where(x < 0, -size, size)
    return torch.where(plain, mantissa, x), torch.where(plain, exponent, 0)


@formula(aten.nextafter.default)
def nextafter(x: Tensor, other: Tensor) -> Tensor:
    """The next float after a number, in the direction of another."""
    dtype = torch.promote_types(x.dtype, other.dtype)
    x, other = torch.broadcast_tensors(x.to(dtype), other.to(dtype))
    info = torch.finfo(dtype)
    least = torch.full_like(x, info.smallest_normal * info.eps)
    size = x.abs()
    plain = x.isfinite() & (x != 0)
    mantissa, steps = _normalised(torch.where(plain, size, torch.ones_like(x)))
    unit = torch.full_like(x, info.eps / 2)
    for taken, place in steps:
        unit = torch.where(taken, unit * 2.0**place, unit)
    # Below a power of two the numbers are twice as dense; the smallest ones have one distance.
    below = torch.where(mantissa == 0.5, unit / 2, unit).maximum(least)
    outwards = (other > x) == (x > 0)
    moved = torch.where(outwards, size + unit.maximum(least), size - below)
    moved = torch.where(x.isinf(), torch.full_like(x, info.max), moved)
    result = torch.where(x < 0, -moved, moved)
    result = torch.where(x == 0, torch.where(other > 0, least, -least), result)
    result = torch.where(x == other, other, result)
    return torch.where(x.isnan() | other.isnan(), torch.full_like(x, torch.nan), result)
