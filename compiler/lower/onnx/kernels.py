"""Operators with no CPU kernel, or no exact one, in some dtypes in ONNX Runtime 1.31, as tried.

An emitter that asks for one is refused, so that the next candidate is tried.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir

_FLOAT_ONLY = frozenset((
    "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Celu", "Conv", "ConvTranspose", "Cosh",
    "Det", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "InstanceNormalization",
    "AveragePool", "LeakyRelu", "Mish", "PRelu", "Selu", "Sinh", "Softplus", "Tan",
))  # fmt: skip
_NO_INTEGERS = frozenset((
    "BatchNormalization", "Ceil", "Cos", "DepthToSpace", "Exp", "Floor", "Gemm", "GridSample",
    "GroupNormalization", "IsInf", "IsNaN", "LayerNormalization", "Log", "LogSoftmax", "MaxPool",
    "RMSNormalization", "Reciprocal", "Round", "Sigmoid", "Sin", "Softmax", "Sqrt", "Sum",
    "Tanh",
))  # fmt: skip
_NO_TRUTH = frozenset((
    "Abs", "Add", "ArgMax", "ArgMin", "Clip", "CumSum", "Div", "Einsum", "Greater",
    "GreaterOrEqual", "Less", "LessOrEqual", "MatMul", "Max", "Min", "Mod", "Mul", "Neg",
    "OneHot", "Pow", "Range", "ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceMean",
    "ReduceProd", "ReduceSum", "Relu", "Resize", "Sign", "Sub", "TopK", "Unique", "Where",
))  # fmt: skip
# The runtime has these for integers, but computes them in floats: not exactly.
_IN_FLOATS = frozenset(("ReduceProd",))
_LACKING: dict[ir.DataType, frozenset[str]] = {
    ir.DataType.DOUBLE: _FLOAT_ONLY | {"Resize", "NonZero"},
    ir.DataType.INT32: _FLOAT_ONLY | _NO_INTEGERS | _IN_FLOATS | {"Unique"},
    ir.DataType.INT64: _FLOAT_ONLY | _NO_INTEGERS | _IN_FLOATS | {"Relu", "Resize"},
    ir.DataType.BOOL: _FLOAT_ONLY | _NO_INTEGERS | _NO_TRUTH,
}
_TRUTH = frozenset((
    "And", "Equal", "Greater", "GreaterOrEqual", "IsInf", "IsNaN", "Less", "LessOrEqual", "Not",
    "Or", "Xor",
))  # fmt: skip
_INTEGER = frozenset((
    "ArgMax", "ArgMin", "NonZero", "Shape", "Size",
))  # fmt: skip
# The operand that gives the result its dtype, where it is not the first.
_OPERAND = {"Where": 1, "OneHot": 2, "DequantizeLinear": 1, "GatherBlockQuantized": 2}

Types = Sequence[ir.DataType | None]


def lacks(op_type: str, types: Types) -> ir.DataType | None:
    """The dtype in which the runtime has no kernel of an operator on such inputs; None if it has.

    An unknown dtype is taken for one that it has.
    """
    dtype = _deciding(op_type, types)
    return dtype if dtype is not None and op_type in _LACKING.get(dtype, ()) else None


def result_types(
    op_type: str, types: Types, attributes: Mapping[str, Any], outputs: int
) -> list[ir.DataType | None]:
    """The dtypes of an operator's results; None where it is not known."""
    if op_type == "Cast":
        return [ir.DataType(attributes["to"])]
    if op_type in _TRUTH:
        return [ir.DataType.BOOL]
    if op_type in _INTEGER:
        return [ir.DataType.INT64]
    first = _deciding(op_type, types)
    if op_type == "GroupQueryAttention":  # the caches stay as they were given
        return [first, *types[3:5]]
    return [first, *[ir.DataType.INT64 if op_type in ("TopK", "Unique") else first] * (outputs - 1)]


def _deciding(op_type: str, types: Types) -> ir.DataType | None:
    place = _OPERAND.get(op_type, 0)
    return types[place] if place < len(types) else None
