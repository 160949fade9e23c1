"""Element-wise operators: arithmetic with torch's type promotion, comparisons, activations."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx.node import Node

from strop.compiler.lower.onnx.emitter import Emitter
from strop.compiler.lower.onnx.refusal import NotLowered
from strop.compiler.lower.onnx.table import lowers
from strop.compiler.program import dtype_of

aten = torch.ops.aten

UNARY: dict[OpOverload[Any, Any], str] = {
    aten.abs.default: "Abs",
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
# From here on softplus is its argument, in float32.
_SOFTPLUS_IS_LINEAR = 17
# ONNX has these for floats only; an integer is what rounding makes of it, and never odd.
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
BINARY: dict[OpOverload[Any, Any], str] = {
    aten.div.Tensor: "Div",
    aten.div.Scalar: "Div",
    aten.logical_and.default: "And",
    aten.logical_or.default: "Or",
    aten.logical_xor.default: "Xor",
}
COMPARE: dict[str, str] = {
    "eq": "Equal",
    "lt": "Less",
    "le": "LessOrEqual",
    "gt": "Greater",
    "ge": "GreaterOrEqual",
}


def _promoted(on: Emitter, *arguments: Any, dtype: torch.dtype | None = None) -> list[Any]:
    """The arguments as values of the result's dtype (or a given one)."""
    dtype = dtype or dtype_of(on.node)
    return [on.operand(a, dtype) for a in arguments]


def _common_dtype(*arguments: Any) -> torch.dtype:
    """The dtype in which torch compares or combines the arguments."""
    values = [a.meta["val"] if isinstance(a, Node) else a for a in arguments]
    sizes = {torch.SymInt: 1, torch.SymFloat: 1.0, torch.SymBool: True}
    plain = [sizes.get(type(v), v) for v in values]
    return torch.result_type(*plain)  # numbers are welcome too


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


def _enter_binary() -> None:
    for target, op_type in BINARY.items():

        @lowers(target)
        def emit(on: Emitter, a: Any, b: Any, op_type: str = op_type) -> Any:
            return on.op(op_type, *_promoted(on, a, b))


def _enter_comparisons() -> None:
    for name, op_type in COMPARE.items():
        packet = getattr(aten, name)

        @lowers(packet.Tensor, packet.Scalar)
        def emit(on: Emitter, a: Any, b: Any, op_type: str = op_type) -> Any:
            dtype = _common_dtype(a, b)
            # ONNX orders numbers only; False < True holds for 0 < 1.
            dtype = torch.int32 if dtype == torch.bool and op_type != "Equal" else dtype
            return on.op(op_type, *_promoted(on, a, b, dtype=dtype))


_enter_unary()
_enter_binary()
_enter_comparisons()


@lowers(aten.ne.Tensor, aten.ne.Scalar)
def ne(on: Emitter, a: Any, b: Any) -> Any:
    return on.op("Not", on.op("Equal", *_promoted(on, a, b, dtype=_common_dtype(a, b))))


def _numeric(on: Emitter, a: Any, b: Any, op_type: str, logical: str) -> Any:
    """Operators that ONNX defines on numbers, and torch on truth values too."""
    return on.op(logical if dtype_of(on.node) == torch.bool else op_type, *_promoted(on, a, b))


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
    left, right = _promoted(on, a, b)
    if alpha != 1:
        right = on.op("Mul", right, *_promoted(on, alpha))
    if dtype_of(on.node) == torch.bool:
        return on.op("Or", left, right)
    return on.op(op_type, left, right)


@lowers(aten.div.Tensor_mode, aten.div.Scalar_mode)
def div_mode(on: Emitter, a: Any, b: Any, rounding_mode: str | None) -> Any:
    if rounding_mode is None:
        return on.op("Div", *_promoted(on, a, b))
    if rounding_mode == "floor":
        return floor_divide(on, a, b)
    quotient = on.op("Div", *_promoted(on, a, b))
    if not dtype_of(on.node).is_floating_point:
        return quotient
    return on.op("Mul", on.op("Floor", on.op("Abs", quotient)), on.op("Sign", quotient))


@lowers(aten.floor_divide.default)
def floor_divide(on: Emitter, a: Any, b: Any, *_: Any) -> Any:
    left, right = _promoted(on, a, b)
    if dtype_of(on.node).is_floating_point:
        return _float_floor(on, left, right)
    # ONNX integer Div truncates; subtracting the non-negative remainder first makes it floor.
    return on.op("Div", on.op("Sub", left, on.op("Mod", left, right)), right)


@lowers(aten.remainder.Scalar, aten.remainder.Tensor)
def remainder(on: Emitter, a: Any, b: Any) -> Any:
    left, right = _promoted(on, a, b)
    if not dtype_of(on.node).is_floating_point:
        return on.op("Mod", left, right)
    rest, across = _rest(on, left, right)
    return on.op("Where", across, on.op("Add", rest, right), rest)


def _rest(on: Emitter, left: Any, right: Any) -> tuple[Any, Any]:
    """The exact remainder of a float division towards zero, and where that is not downwards.

    ``left / right`` would be rounded first: 1 / 0.1 to 10, while 0.1 as a float goes into 1 nine
    times.
    """
    rest = on.op("Mod", left, right, fmod=1)
    zero = on.constant(0.0, dtype_of(on.node))
    opposite = on.op("Xor", on.op("Less", rest, zero), on.op("Less", right, zero))
    return rest, on.op("And", opposite, on.op("Not", on.op("Equal", rest, zero)))


def _float_floor(on: Emitter, left: Any, right: Any) -> Any:
    rest, across = _rest(on, left, right)
    one, zero = on.constant(1.0, dtype_of(on.node)), on.constant(0.0, dtype_of(on.node))
    times = on.op("Round", on.op("Div", on.op("Sub", left, rest), right))
    downwards = on.op("Where", across, on.op("Sub", times, one), times)
    return on.op("Where", on.op("Equal", right, zero), on.op("Div", left, right), downwards)


@lowers(aten.fmod.Scalar, aten.fmod.Tensor)
def fmod(on: Emitter, a: Any, b: Any) -> Any:
    return on.op("Mod", *_promoted(on, a, b), fmod=1)


@lowers(aten.pow.Tensor_Scalar, aten.pow.Tensor_Tensor, aten.pow.Scalar)
def pow(on: Emitter, base: Any, exponent: Any) -> Any:
    if exponent == 2:
        (x,) = _promoted(on, base)
        return on.op("Mul", x, x)
    if exponent == 0.5:
        return on.op("Sqrt", *_promoted(on, base))
    return on.op("Pow", *_promoted(on, base, exponent))


@lowers(aten.round.decimals)
def round_decimals(on: Emitter, x: Any, decimals: int) -> Any:
    value, scale = _promoted(on, x, 10.0**decimals)
    return on.op("Div", on.op("Round", on.op("Mul", value, scale)), scale)


@lowers(aten.trunc.default)
def trunc(on: Emitter, x: Any) -> Any:
    value = on.value(x)
    if not dtype_of(x).is_floating_point:
        return value
    return on.op("Mul", on.op("Floor", on.op("Abs", value)), on.op("Sign", value))


@lowers(aten.rsqrt.default)
def rsqrt(on: Emitter, x: Any) -> Any:
    return on.op("Reciprocal", on.op("Sqrt", *_promoted(on, x)))


@lowers(aten.log2.default)
def log2(on: Emitter, x: Any) -> Any:
    value, scale = _promoted(on, x, math.log(2))
    return on.op("Div", on.op("Log", value), scale)


@lowers(aten.log10.default)
def log10(on: Emitter, x: Any) -> Any:
    value, scale = _promoted(on, x, math.log(10))
    return on.op("Div", on.op("Log", value), scale)


@lowers(aten.exp2.default)
def exp2(on: Emitter, x: Any) -> Any:
    two, value = _promoted(on, 2, x)
    return on.op("Pow", two, value)


@lowers(aten.log_sigmoid.default)
def log_sigmoid(on: Emitter, x: Any) -> Any:
    return on.op("Neg", on.op("Softplus", on.op("Neg", on.value(x))))


@lowers(aten.selu.default)
def selu(on: Emitter, x: Any) -> Any:
    return on.op("Selu", on.value(x))


@lowers(aten.square.default)
def square(on: Emitter, x: Any) -> Any:
    (value,) = _promoted(on, x)
    return on.op("Mul", value, value)


@lowers(aten.log1p.default)
def log1p(on: Emitter, x: Any) -> Any:
    """``log(u) * x / (u - 1)`` with ``u = 1 + x`` as rounded (W. Kahan): exact near zero."""
    value, one = _promoted(on, x, 1)
    u = on.op("Add", value, one)
    ratio = on.op("Div", value, on.op("Sub", u, one))
    large = on.op("Where", on.op("Equal", u, value), one, ratio)
    log = on.op("Mul", on.op("Log", u), large)
    return on.op("Where", on.op("Equal", u, one), value, log)


@lowers(aten.expm1.default)
def expm1(on: Emitter, x: Any) -> Any:
    """``2 exp(x/2) sinh(x/2)``: no difference of near numbers. Below -40 it is -1."""
    value, two, least = _promoted(on, x, 2, -40)
    value = on.op("Where", on.op("Less", value, least), least, value)
    half = on.op("Div", value, two)
    return on.op("Mul", on.op("Mul", on.op("Exp", half), on.op("Sinh", half)), two)


@lowers(aten.logaddexp.default)
def logaddexp(on: Emitter, a: Any, b: Any) -> Any:
    """``max(a, b) + log(1 + exp(-|a - b|))``: nothing overflows."""
    left, right = _promoted(on, a, b)
    zero, one = on.constant(0.0, dtype_of(on.node)), on.constant(1.0, dtype_of(on.node))
    apart = on.op("Neg", on.op("Abs", on.op("Sub", left, right)))
    apart = on.op("Where", on.op("Equal", left, right), zero, apart)  # inf - inf is NaN
    return on.op(
        "Add", on.op("Max", left, right), on.op("Log", on.op("Add", one, on.op("Exp", apart)))
    )


@lowers(aten.atan2.default)
def atan2(on: Emitter, y: Any, x: Any) -> Any:
    """The angle of |y| and |x|, mirrored by their signs, those of zeros included."""
    up, right = _promoted(on, y, x)
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


@lowers(aten.logical_not.default, aten.bitwise_not.default)
def logical_not(on: Emitter, x: Any) -> Any:
    if dtype_of(x) != torch.bool and on.node.target is aten.bitwise_not.default:
        return on.op("BitwiseNot", on.value(x))
    return on.op("Not", on.operand(x, torch.bool))


def _bitwise(on: Emitter, a: Any, b: Any, logical: str, bitwise: str) -> Any:
    dtype = dtype_of(on.node)
    return on.op(logical if dtype == torch.bool else bitwise, *_promoted(on, a, b))


@lowers(aten.bitwise_and.Tensor, aten.bitwise_and.Scalar, aten.__and__.Tensor, aten.__and__.Scalar)
def bitwise_and(on: Emitter, a: Any, b: Any) -> Any:
    return _bitwise(on, a, b, "And", "BitwiseAnd")


@lowers(aten.bitwise_or.Tensor, aten.bitwise_or.Scalar, aten.__or__.Tensor, aten.__or__.Scalar)
def bitwise_or(on: Emitter, a: Any, b: Any) -> Any:
    return _bitwise(on, a, b, "Or", "BitwiseOr")


@lowers(aten.bitwise_xor.Tensor, aten.bitwise_xor.Scalar, aten.__xor__.Tensor)
def bitwise_xor(on: Emitter, a: Any, b: Any) -> Any:
    return _bitwise(on, a, b, "Xor", "BitwiseXor")


@lowers(aten.where.self, aten.where.ScalarOther, aten.where.ScalarSelf, aten.where.Scalar)
def where(on: Emitter, condition: Any, a: Any, b: Any) -> Any:
    return on.op("Where", on.operand(condition, torch.bool), *_promoted(on, a, b))


@lowers(aten.masked_fill.Scalar, aten.masked_fill.Tensor)
def masked_fill(on: Emitter, x: Any, mask: Any, value: Any) -> Any:
    filled, kept = _promoted(on, value, x)
    return on.op("Where", on.operand(mask, torch.bool), filled, kept)


@lowers(aten.clamp.default, aten.clamp.Tensor, aten.clip.default)
def clamp(on: Emitter, x: Any, low: Any, high: Any) -> Any:
    (value,) = _promoted(on, x)
    if low is not None:
        value = on.op("Max", value, *_promoted(on, low))
    if high is not None:
        value = on.op("Min", value, *_promoted(on, high))
    return value


@lowers(aten.clamp_min.default)
def clamp_min(on: Emitter, x: Any, low: Any) -> Any:
    return clamp(on, x, low, None)


@lowers(aten.clamp_max.default)
def clamp_max(on: Emitter, x: Any, high: Any) -> Any:
    return clamp(on, x, None, high)


@lowers(aten.relu6.default)
def relu6(on: Emitter, x: Any) -> Any:
    return hardtanh(on, x, 0.0, 6.0)


@lowers(aten.hardtanh.default)
def hardtanh(on: Emitter, x: Any, low: float, high: float) -> Any:
    return on.op("Clip", *_promoted(on, x, low, high))


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
    value, factor, most = _promoted(on, x, beta, threshold)
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
    elif rank > 2 and weight.meta["val"].numel() > 1:
        slope = on.op("Unsqueeze", slope, on.constant(list(range(1, rank - 1))))
    return on.op("PRelu", on.value(x), slope)


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
    aten.dropout.default,
)
def identity(on: Emitter, x: Any, *rest: Any) -> Any:
    if on.node.target is aten.dropout.default and rest[1]:
        raise NotLowered("dropout in train mode")
    return on.value(x)
