"""Primitives that are left when torch decomposes an operator."""

from __future__ import annotations

from typing import Any

import torch

from strop.compiler.ir.nodes import dtype_of, shape_of
from strop.compiler.lower.onnx.emitter import Emitter
from strop.compiler.lower.onnx.products import integer_product
from strop.compiler.lower.onnx.table import lowers

prims = torch.ops.prims


@lowers(prims.convert_element_type.default)
def convert_element_type(on: Emitter, x: Any, *_: Any) -> Any:
    return on.operand(x, dtype_of(on.node))


@lowers(prims.broadcast_in_dim.default)
def broadcast_in_dim(on: Emitter, x: Any, shape: list[Any], axes: list[int]) -> Any:
    """Axes of x at the places given, then repeated."""
    sizes: list[Any] = [1] * len(shape)
    for axis, size in zip(axes, shape_of(x)):
        sizes[axis] = size
    value = on.reshape(on.value(x), shape_of(x), sizes)
    return on.op("Expand", value, on.shape(list(shape_of(on.node))))


@lowers(prims.sum.default)
def sum(on: Emitter, x: Any, dims: list[int], *_: Any) -> Any:
    return _reduce(on, "ReduceSum", x, dims)


@lowers(prims.prod.default)
def prod(on: Emitter, x: Any, dims: list[int], *_: Any) -> Any:
    if not dtype_of(on.node).is_floating_point:
        return integer_product(on, x, dims, keepdim=False)
    return _reduce(on, "ReduceProd", x, dims)


def _reduce(on: Emitter, op_type: str, x: Any, dims: list[int]) -> Any:
    value = on.operand(x, dtype_of(on.node))
    return on.op(op_type, value, on.constant(dims), keepdims=0) if dims else value
