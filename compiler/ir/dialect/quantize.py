"""Values rounded to a grid of whole numbers whose scale was fixed beforehand."""

from __future__ import annotations

import torch
from torch import Tensor

from strop.compiler.ir.dialect.registry import define


@define(
    "fake_quantize(Tensor x, Tensor scale, Tensor zero_point, int? axis, int low, int high) "
    "-> Tensor",
    stored={"x": torch.int8},
)
def fake_quantize(
    x: Tensor, scale: Tensor, zero_point: Tensor, axis: int | None, low: int, high: int
) -> Tensor:
    """scale * (clamp(round(x / scale) + zero_point, low, high) - zero_point), ties to even.

    The meaning is that of ONNX QuantizeLinear followed by DequantizeLinear. Gradients reach x,
    straight through, where it lies within the range, and the scale as in Esser et al., Learned
    Step Size Quantization (2020), equation 3: round(x / scale) - x / scale within the range, and
    the whole number at its end outside.

    Args:
        x: float, of any shape.
        scale: float, not 0; one number, or one for each position of ``axis``.
        zero_point: whole numbers within low and high, of any dtype, of the shape of ``scale``.
        axis: of x along which scales differ; None for one scale, whose shape is [].
        low: the lowest whole number.
        high: the highest.
    """
    if axis is not None:
        wide = [1] * x.dim()
        wide[axis] = -1
        scale, zero_point = scale.reshape(wide), zero_point.reshape(wide)
    zero = zero_point.detach().to(x.dtype)
    steps = (x / scale).clamp(low - zero, high - zero)
    return (steps + (steps.round() - steps).detach()) * scale
