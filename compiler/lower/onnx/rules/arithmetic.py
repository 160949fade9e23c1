"""Sums, products, powers and extremes."""

from __future__ import annotations

from typing import Any

import torch

from strop.compiler.ir.nodes import dtype_of
from strop.compiler.lower.onnx.emitter import Emitter
from strop.compiler.lower.onnx.promotion import promoted
from strop.compiler.lower.onnx.refusal import NotLowered
from strop.compiler.lower.onnx.table import lowers

aten = torch.ops.aten


def _numeric(on: Emitter, a: Any, b: Any, op_type: str, logical: str) -> Any:
    """Operators that ONNX defines on numbers, and torch on truth values too."""
    return on.op(logical if dtype_of(on.node) == torch.bool else op_type, *promoted(on, a, b))


@lowers(aten.mul.Tensor, aten.mul.Scalar)
def mul(on: Emitter, a: Any, b: Any) -> Any:
    return _numeric(on, a, b, "Mul", "And")


@lowers(aten.maximum.default, aten.max.other)
def maximum(on: Emitter, a: Any, b: Any) -> Any:
    return _numeric(on, a, b, "Max", "Or")


@lowers(aten.minimum.default, aten.min.other)
def minimum(on: Emitter, a: Any, b: Any) -> Any:
    return _numeric(on, a, b, "Min", "And")


@lowers(aten.add.Tensor, aten.add.Scalar)
def add(on: Emitter, a: Any, b: Any, alpha: Any) -> Any:
    return _sum(on, "Add", a, b, alpha)


@lowers(aten.sub.Tensor, aten.sub.Scalar)
def sub(on: Emitter, a: Any, b: Any, alpha: Any) -> Any:
    return _sum(on, "Sub", a, b, alpha)


@lowers(aten.rsub.Scalar, aten.rsub.Tensor)
def rsub(on: Emitter, a: Any, b: Any, alpha: Any) -> Any:
    return _sum(on, "Sub", b, a, alpha)


def _sum(on: Emitter, op_type: str, a: Any, b: Any, alpha: Any) -> Any:
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        raise NotLowered("neither operand is a tensor")
    left, right = promoted(on, a, b)
    if alpha != 1:
        right = on.op("Mul", right, *promoted(on, alpha))
    if dtype_of(on.node) == torch.bool:
        return on.op("Or", left, right)
    return on.op(op_type, left, right)


@lowers(aten.div.Tensor, aten.div.Scalar)
def div(on: Emitter, a: Any, b: Any) -> Any:
    return on.op("Div", *promoted(on, a, b))


@lowers(aten.pow.Tensor_Scalar, aten.pow.Tensor_Tensor, aten.pow.Scalar)
def pow(on: Emitter, base: Any, exponent: Any) -> Any:
    if not dtype_of(on.node).is_floating_point:
        return _integer_power(on, base, exponent)
    if exponent == 2:
        (x,) = promoted(on, base)
        return on.op("Mul", x, x)
    if exponent == 0.5:
        return on.op("Sqrt", *promoted(on, base))
    return on.op("Pow", *promoted(on, base, exponent))


def _integer_power(on: Emitter, base: Any, exponent: Any) -> Any:
    """By squares: the runtime computes powers of integers in floats."""
    if not isinstance(exponent, int) or exponent < 1:
        raise NotLowered("a power of integers with a computed exponent")
    (square,) = promoted(on, base)
    result = None
    while exponent:
        if exponent % 2:
            result = square if result is None else on.op("Mul", result, square)
        exponent //= 2
        square = on.op("Mul", square, square)  # the last one is dropped: nothing reads it
    return result


@lowers(aten.clamp.default, aten.clamp.Tensor, aten.clip.default)
def clamp(on: Emitter, x: Any, low: Any, high: Any) -> Any:
    (value,) = promoted(on, x)
    if low is not None:
        value = on.op("Max", value, *promoted(on, low))
    if high is not None:
        value = on.op("Min", value, *promoted(on, high))
    return value


@lowers(aten.clamp_min.default)
def clamp_min(on: Emitter, x: Any, low: Any) -> Any:
    return clamp(on, x, low, None)


@lowers(aten.clamp_max.default)
def clamp_max(on: Emitter, x: Any, high: Any) -> Any:
    return clamp(on, x, None, high)
