"""Values on a grid of whole numbers, in two operators that every runtime fuses into others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from strop.compiler.ir.nodes import dtype_of
from strop.compiler.lower.onnx.emitter import Emitter
from strop.compiler.lower.onnx.refusal import NotLowered
from strop.compiler.lower.onnx.table import lowers


@lowers(torch.ops.strop.fake_quantize.default)
def fake_quantize(
    on: Emitter, x: Any, scale: Any, zero_point: Any, axis: int | None, low: int, high: int
) -> Any:
    """A constant is stored as whole numbers."""
    stored = _stored_dtype(low, high)
    zero = on.once(
        ("zero point", zero_point, stored),
        lambda: on.derived([zero_point], lambda zero: zero.to(stored)),
    )
    if on.is_constant(x):

        def grid(x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
            scale, zero = (_along(axis, t.double(), x.dim()) for t in (scale, zero))
            return ((x / scale).round() + zero).clamp(low, high).to(stored)

        name = f"{x.target if x.op == 'get_attr' else x.name}.grid"
        whole = on.derived([x, scale, zero_point], grid, name)
    else:
        _require_whole_range(stored, low, high)
        whole = on.op("QuantizeLinear", on.value(x), on.value(scale), zero, axis=axis)
    result = on.op("DequantizeLinear", whole, on.value(scale), zero, axis=axis)
    return result if dtype_of(on.node) == dtype_of(scale) else on.cast(result, dtype_of(on.node))


def _stored_dtype(low: int, high: int) -> torch.dtype:
    """The smallest dtype that holds a range."""
    for dtype in (torch.uint8, torch.int8, torch.int32):
        if torch.iinfo(dtype).min <= low and high <= torch.iinfo(dtype).max:
            return dtype
    raise NotLowered(f"no dtype of ONNX Runtime's quantization holds {low} to {high}")


def _along(axis: int | None, values: Tensor, dims: int) -> Tensor:
    if axis is None:
        return values
    wide = [1] * dims
    wide[axis] = -1
    return values.reshape(wide)


def _require_whole_range(stored: torch.dtype, low: int, high: int) -> None:
    """QuantizeLinear keeps values within the range of its dtype, and within no smaller one.

    Raises:
        NotLowered: the range is a smaller one.
    """
    limits = torch.iinfo(stored)
    if (low, high) != (limits.min, limits.max):
        raise NotLowered(
            f"values computed at run time are quantized to the whole range of {stored}, "
            f"{limits.min} to {limits.max}; this one is {low} to {high}"
        )
