"""Comparisons, truth values, bits, and choices by them."""

from __future__ import annotations

from typing import Any

import torch

from strop.compiler.ir.nodes import dtype_of
from strop.compiler.lower.onnx.emitter import Emitter
from strop.compiler.lower.onnx.promotion import common_dtype, promoted
from strop.compiler.lower.onnx.table import lowers

aten = torch.ops.aten


COMPARE: dict[str, str] = {
    "eq": "Equal",
    "lt": "Less",
    "le": "LessOrEqual",
    "gt": "Greater",
    "ge": "GreaterOrEqual",
}


def _enter_comparisons() -> None:
    for name, op_type in COMPARE.items():
        packet = getattr(aten, name)

        @lowers(packet.Tensor, packet.Scalar)
        def emit(on: Emitter, a: Any, b: Any, op_type: str = op_type) -> Any:
            dtype = common_dtype(a, b)
            # ONNX orders numbers only; False < True holds for 0 < 1.
            dtype = torch.int32 if dtype == torch.bool and op_type != "Equal" else dtype
            return on.op(op_type, *promoted(on, a, b, dtype=dtype))


_enter_comparisons()


@lowers(aten.ne.Tensor, aten.ne.Scalar)
def ne(on: Emitter, a: Any, b: Any) -> Any:
    return on.op("Not", on.op("Equal", *promoted(on, a, b, dtype=common_dtype(a, b))))


@lowers(aten.logical_and.default)
def logical_and(on: Emitter, a: Any, b: Any) -> Any:
    return on.op("And", *promoted(on, a, b))


@lowers(aten.logical_or.default)
def logical_or(on: Emitter, a: Any, b: Any) -> Any:
    return on.op("Or", *promoted(on, a, b))


@lowers(aten.logical_xor.default)
def logical_xor(on: Emitter, a: Any, b: Any) -> Any:
    return on.op("Xor", *promoted(on, a, b))


@lowers(aten.logical_not.default, aten.bitwise_not.default)
def logical_not(on: Emitter, x: Any) -> Any:
    if dtype_of(x) != torch.bool and on.node.target is aten.bitwise_not.default:
        return on.op("BitwiseNot", on.value(x))
    return on.op("Not", on.operand(x, torch.bool))


def _bitwise(on: Emitter, a: Any, b: Any, logical: str, bitwise: str) -> Any:
    dtype = dtype_of(on.node)
    return on.op(logical if dtype == torch.bool else bitwise, *promoted(on, a, b))


@lowers(aten.bitwise_and.Tensor, aten.bitwise_and.Scalar, aten.__and__.Tensor, aten.__and__.Scalar)
def bitwise_and(on: Emitter, a: Any, b: Any) -> Any:
    return _bitwise(on, a, b, "And", "BitwiseAnd")


@lowers(aten.bitwise_or.Tensor, aten.bitwise_or.Scalar, aten.__or__.Tensor, aten.__or__.Scalar)
def bitwise_or(on: Emitter, a: Any, b: Any) -> Any:
    return _bitwise(on, a, b, "Or", "BitwiseOr")


@lowers(aten.bitwise_xor.Tensor, aten.bitwise_xor.Scalar, aten.__xor__.Tensor, aten.__xor__.Scalar)
def bitwise_xor(on: Emitter, a: Any, b: Any) -> Any:
    return _bitwise(on, a, b, "Xor", "BitwiseXor")


@lowers(
    aten.where.self,
    aten.where.ScalarOther,
    aten.where.ScalarSelf,
    aten.where.Scalar,
    torch.ops.prims.where.default,
)
def where(on: Emitter, condition: Any, a: Any, b: Any) -> Any:
    return _chosen(on, on.operand(condition, torch.bool), *promoted(on, a, b))


@lowers(aten.masked_fill.Scalar, aten.masked_fill.Tensor)
def masked_fill(on: Emitter, x: Any, mask: Any, value: Any) -> Any:
    filled, kept = promoted(on, value, x)
    return _chosen(on, on.operand(mask, torch.bool), filled, kept)


def _chosen(on: Emitter, condition: Any, a: Any, b: Any) -> Any:
    """One of two, element by element; ONNX Runtime's ``Where`` takes no truth values."""
    if dtype_of(on.node) != torch.bool:
        return on.op("Where", condition, a, b)
    other = on.op("And", on.op("Not", condition), b)
    return on.op("Or", on.op("And", condition, a), other)
