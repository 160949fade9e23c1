"""Exact products of integers along axes."""

from __future__ import annotations

from typing import Any

from strop.compiler.ir.nodes import dtype_of, shape_of, static_int
from strop.compiler.lower.onnx.emitter import Emitter
from strop.compiler.lower.onnx.refusal import NotLowered


def integer_product(on: Emitter, x: Any, dims: list[int], keepdim: bool) -> Any:
    """Exact, and wrapped where it overflows, as in torch: the runtime's own is one of floats.

    Raises:
        NotLowered: an axis is dynamic, so that the number of steps is not known.
    """
    value = on.operand(x, dtype_of(on.node))
    for dim in dims:
        count = static_int(shape_of(x)[dim])
        if count is None:
            raise NotLowered("a product of integers along a dynamic axis")
        value = _multiplied(on, value, dim, count)
    return value if keepdim or not dims else on.op("Squeeze", value, on.constant(dims))


def _multiplied(on: Emitter, value: Any, dim: int, count: int) -> Any:
    """The product along an axis, which keeps size 1: one half times the other, until one is left.

    What is over at an odd size goes to the next step.
    """
    if not count:  # the sum of nothing is 0, the product 1
        nothing = on.op("ReduceSum", value, on.constant([dim]), keepdims=1)
        return on.op("Add", nothing, on.constant(1, dtype_of(on.node)))
    while count > 1:
        half, odd = divmod(count, 2)
        pairs = on.op(
            "Mul", _slice(on, value, dim, 0, half), _slice(on, value, dim, half, 2 * half)
        )
        if odd:
            pairs = on.op("Concat", pairs, _slice(on, value, dim, count - 1, count), axis=dim)
        value, count = pairs, half + odd
    return value


def _slice(on: Emitter, value: Any, dim: int, start: int, end: int) -> Any:
    return on.op("Slice", value, on.constant([start]), on.constant([end]), on.constant([dim]))
