"""Functions of one number, and casts."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch._ops import OpOverload

from strop.compiler.ir.nodes import dtype_of
from strop.compiler.lower.onnx.emitter import Emitter
from strop.compiler.lower.onnx.promotion import promoted
from strop.compiler.lower.onnx.refusal import NotLowered
from strop.compiler.lower.onnx.table import lowers

aten = torch.ops.aten
prims = torch.ops.prims


UNARY: dict[OpOverload[Any, Any], str] = {
    aten.abs.default: "Abs",
    prims.abs.default: "Abs",
    aten.acos.default: "Acos",
    aten.asin.default: "Asin",
    aten.atan.default: "Atan",
    aten.ceil.default: "Ceil",
    aten.cos.default: "Cos",
    aten.cosh.default: "Cosh",
    aten.erf.default: "Erf",
    aten.exp.default: "Exp",
    aten.floor.default: "Floor",
    aten.log.default: "Log",
    aten.neg.default: "Neg",
    prims.neg.default: "Neg",
    aten.reciprocal.default: "Reciprocal",
    aten.relu.default: "Relu",
    aten.round.default: "Round",
    aten.sigmoid.default: "Sigmoid",
    aten.sign.default: "Sign",
    aten.sin.default: "Sin",
    aten.sinh.default: "Sinh",
    aten.sqrt.default: "Sqrt",
    aten.tan.default: "Tan",
    aten.tanh.default: "Tanh",
    aten.isnan.default: "IsNaN",
    aten.isinf.default: "IsInf",
    aten.hardswish.default: "HardSwish",
    aten.mish.default: "Mish",
}


# ONNX has these for floats only; an integer is its own rounding, and never NaN or infinite.
ROUNDING, ODDITIES = {"Ceil", "Floor", "Round"}, {"IsNaN", "IsInf"}


FLOAT_RESULT = {
    "Acos",
    "Asin",
    "Atan",
    "Cos",
    "Cosh",
    "Erf",
    "Exp",
    "Log",
    "Reciprocal",
    "Sigmoid",
    "Sin",
    "Sinh",
    "Sqrt",
    "Tan",
    "Tanh",
}


def _enter_unary() -> None:
    for target, op_type in UNARY.items():

        @lowers(target)
        def emit(on: Emitter, x: Any, *_: Any, op_type: str = op_type) -> Any:
            dtype = dtype_of(on.node) if op_type in FLOAT_RESULT else dtype_of(x)
            value = on.operand(x, dtype)
            if not dtype.is_floating_point and op_type in ROUNDING:
                return value
            if not dtype.is_floating_point and op_type in ODDITIES:
                return on.op("Not", on.op("Equal", value, value))
            return on.op(op_type, value)


_enter_unary()


@lowers(aten.rsqrt.default)
def rsqrt(on: Emitter, x: Any) -> Any:
    return on.op("Reciprocal", on.op("Sqrt", *promoted(on, x)))


@lowers(aten.log2.default)
def log2(on: Emitter, x: Any) -> Any:
    value, scale = promoted(on, x, math.log(2))
    return on.op("Div", on.op("Log", value), scale)


@lowers(aten.log10.default)
def log10(on: Emitter, x: Any) -> Any:
    value, scale = promoted(on, x, math.log(10))
    return on.op("Div", on.op("Log", value), scale)


@lowers(aten.exp2.default)
def exp2(on: Emitter, x: Any) -> Any:
    two, value = promoted(on, 2, x)
    return on.op("Pow", two, value)


@lowers(aten.square.default)
def square(on: Emitter, x: Any) -> Any:
    (value,) = promoted(on, x)
    return on.op("Mul", value, value)


@lowers(aten.log1p.default)
def log1p(on: Emitter, x: Any) -> Any:
    """``log(u) * x / (u - 1)`` with ``u = 1 + x`` as rounded (W. Kahan): exact near zero."""
    value, one = promoted(on, x, 1)
    u = on.op("Add", value, one)
    ratio = on.op("Div", value, on.op("Sub", u, one))
    large = on.op("Where", on.op("Equal", u, value), one, ratio)
    log = on.op("Mul", on.op("Log", u), large)
    return on.op("Where", on.op("Equal", u, one), value, log)


@lowers(aten.expm1.default)
def expm1(on: Emitter, x: Any) -> Any:
    """``2 exp(x/2) sinh(x/2)``: no difference of near numbers. Below -40 it is -1."""
    value, two, least = promoted(on, x, 2, -40)
    value = on.op("Where", on.op("Less", value, least), least, value)
    half = on.op("Div", value, two)
    return on.op("Mul", on.op("Mul", on.op("Exp", half), on.op("Sinh", half)), two)


@lowers(aten.logaddexp.default)
def logaddexp(on: Emitter, a: Any, b: Any) -> Any:
    """``max(a, b) + log(1 + exp(-|a - b|))``: nothing overflows."""
    left, right = promoted(on, a, b)
    zero, one = on.constant(0.0, dtype_of(on.node)), on.constant(1.0, dtype_of(on.node))
    apart = on.op("Neg", on.op("Abs", on.op("Sub", left, right)))
    apart = on.op("Where", on.op("Equal", left, right), zero, apart)  # inf - inf is NaN
    return on.op(
        "Add", on.op("Max", left, right), on.op("Log", on.op("Add", one, on.op("Exp", apart)))
    )


@lowers(aten.atan2.default)
def atan2(on: Emitter, y: Any, x: Any) -> Any:
    """The angle of |y| and |x|, mirrored by their signs, those of zeros included."""
    up, right = promoted(on, y, x)
    high, wide = on.op("Abs", up), on.op("Abs", right)
    one, pi, zero = (on.constant(number, dtype_of(on.node)) for number in (1.0, math.pi, 0.0))
    infinite = on.op("And", on.op("IsInf", high), on.op("IsInf", wide))
    slope = on.op("Where", infinite, one, on.op("Div", high, wide))
    angle = on.op("Atan", on.op("Where", on.op("Equal", high, zero), high, slope))
    angle = on.op("Where", _is_negative(on, right, zero), on.op("Sub", pi, angle), angle)
    return on.op("Where", _is_negative(on, up, zero), on.op("Neg", angle), angle)


def _is_negative(on: Emitter, value: Any, zero: Any) -> Any:
    """Whether a number has a minus sign; so has -0.0, as its reciprocal shows."""
    below = on.op("Less", on.op("Reciprocal", value), zero)
    return on.op("Or", on.op("Less", value, zero), below)


@lowers(
    aten.to.dtype,
    aten.to.device,
    aten.to.dtype_layout,
    aten.to.other,
    aten._to_copy.default,
    aten.type_as.default,
)
def to(on: Emitter, x: Any, *_: Any) -> Any:
    return on.operand(x, dtype_of(on.node))


@lowers(
    aten.contiguous.default,
    aten.clone.default,
    aten.alias.default,
    aten.detach.default,
    aten.detach_.default,
    aten.lift_fresh_copy.default,
)
def identity(on: Emitter, x: Any, *_: Any) -> Any:
    return on.value(x)


@lowers(
    aten.dropout.default,
    aten.feature_dropout.default,
    aten.alpha_dropout.default,
    aten.feature_alpha_dropout.default,
)
def dropout(on: Emitter, x: Any, p: float, train: bool) -> Any:
    """Out of training, and where nothing is dropped, the values; zeros where everything is."""
    if not train or p == 0:
        return on.value(x)
    if p < 1:
        raise NotLowered("dropout in train mode, which draws random numbers")
    # A product, as in torch: infinite values become NaN.
    return on.op("Mul", on.value(x), on.constant(0, dtype_of(x)))
