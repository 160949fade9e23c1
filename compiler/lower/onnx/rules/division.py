"""Division and rounding."""

from __future__ import annotations

from typing import Any

import torch

from strop.compiler.ir.nodes import dtype_of
from strop.compiler.lower.onnx.emitter import Emitter
from strop.compiler.lower.onnx.promotion import promoted
from strop.compiler.lower.onnx.table import lowers

aten = torch.ops.aten


@lowers(aten.div.Tensor_mode, aten.div.Scalar_mode)
def div_mode(on: Emitter, a: Any, b: Any, rounding_mode: str | None) -> Any:
    if rounding_mode is None:
        return on.op("Div", *promoted(on, a, b))
    if rounding_mode == "floor":
        return floor_divide(on, a, b)
    quotient = on.op("Div", *promoted(on, a, b))
    if not dtype_of(on.node).is_floating_point:
        return quotient
    return on.op("Mul", on.op("Floor", on.op("Abs", quotient)), on.op("Sign", quotient))


@lowers(aten.floor_divide.default)
def floor_divide(on: Emitter, a: Any, b: Any, *_: Any) -> Any:
    left, right = promoted(on, a, b)
    if dtype_of(on.node).is_floating_point:
        return _float_floor(on, left, right)
    # ONNX integer Div truncates; subtracting the non-negative remainder first makes it floor.
    return on.op("Div", on.op("Sub", left, on.op("Mod", left, right)), right)


@lowers(aten.remainder.Scalar, aten.remainder.Tensor)
def remainder(on: Emitter, a: Any, b: Any) -> Any:
    left, right = promoted(on, a, b)
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
    left, right = promoted(on, a, b)
    if dtype_of(on.node).is_floating_point:
        return on.op("Mod", left, right, fmod=1)
    # The runtime computes the remainder towards zero of integers in floats; Div truncates exactly.
    return on.op("Sub", left, on.op("Mul", on.op("Div", left, right), right))


@lowers(aten.round.decimals)
def round_decimals(on: Emitter, x: Any, decimals: int) -> Any:
    value, scale = promoted(on, x, 10.0**decimals)
    return on.op("Div", on.op("Round", on.op("Mul", value, scale)), scale)


@lowers(aten.trunc.default)
def trunc(on: Emitter, x: Any) -> Any:
    value = on.value(x)
    if not dtype_of(x).is_floating_point:
        return value
    return on.op("Mul", on.op("Floor", on.op("Abs", value)), on.op("Sign", value))
