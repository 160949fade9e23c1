"""Activations."""

from __future__ import annotations

from typing import Any

import torch

from strop.compiler.lower.onnx.emitter import Emitter
from strop.compiler.lower.onnx.promotion import promoted
from strop.compiler.lower.onnx.refusal import NotLowered
from strop.compiler.lower.onnx.table import lowers

aten = torch.ops.aten


# From here on softplus is its argument, in float32.
_SOFTPLUS_IS_LINEAR = 17


@lowers(aten.log_sigmoid.default)
def log_sigmoid(on: Emitter, x: Any) -> Any:
    return on.op("Neg", on.op("Softplus", on.op("Neg", on.value(x))))


@lowers(aten.selu.default)
def selu(on: Emitter, x: Any) -> Any:
    return on.op("Selu", on.value(x))


@lowers(aten.relu6.default)
def relu6(on: Emitter, x: Any) -> Any:
    return hardtanh(on, x, 0.0, 6.0)


@lowers(aten.hardtanh.default)
def hardtanh(on: Emitter, x: Any, low: float, high: float) -> Any:
    return on.op("Clip", *promoted(on, x, low, high))


@lowers(aten.hardsigmoid.default)
def hardsigmoid(on: Emitter, x: Any) -> Any:
    return on.op("HardSigmoid", on.value(x), alpha=1 / 6, beta=0.5)


@lowers(aten.leaky_relu.default)
def leaky_relu(on: Emitter, x: Any, slope: float) -> Any:
    return on.op("LeakyRelu", on.value(x), alpha=float(slope))


@lowers(aten.elu.default)
def elu(on: Emitter, x: Any, alpha: float, scale: float, input_scale: float) -> Any:
    if (scale, input_scale) != (1, 1):
        raise NotLowered("elu with a scale")
    return on.op("Elu", on.value(x), alpha=float(alpha))


@lowers(aten.softplus.default)
def softplus(on: Emitter, x: Any, beta: float, threshold: float) -> Any:
    value, factor, most = promoted(on, x, beta, threshold)
    scaled = value if beta == 1 else on.op("Mul", value, factor)
    soft = on.op("Softplus", scaled)
    soft = soft if beta == 1 else on.op("Div", soft, factor)
    if threshold >= _SOFTPLUS_IS_LINEAR:
        return soft
    return on.op("Where", on.op("Greater", scaled, most), value, soft)


@lowers(aten.gelu.default)
def gelu(on: Emitter, x: Any, approximate: str) -> Any:
    return on.op("Gelu", on.value(x), approximate=approximate)


@lowers(aten.silu.default)
def silu(on: Emitter, x: Any) -> Any:
    value = on.value(x)
    return on.op("Mul", value, on.op("Sigmoid", value))


@lowers(aten.glu.default)
def glu(on: Emitter, x: Any, dim: int) -> Any:
    first, gate = on.op("Split", on.value(x), axis=dim, num_outputs=2, outputs=2)
    return on.op("Mul", first, on.op("Sigmoid", gate))


@lowers(aten.prelu.default)
def prelu(on: Emitter, x: Any, weight: Any) -> Any:
    slope = on.value(weight)
    rank = len(x.meta["val"].shape)
    if rank == 0:  # the runtime would give it the axis of the slope
        slope = on.op("Squeeze", slope)
    elif rank > 2 and weight.meta["val"].dim():  # one slope alone fits any axes
        slope = on.op("Unsqueeze", slope, on.constant(list(range(1, rank - 1))))
    return on.op("PRelu", on.value(x), slope)
