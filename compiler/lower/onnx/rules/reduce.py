"""Reductions, softmax, cumulative sums."""

from __future__ import annotations

import math
from typing import Any

import torch

from strop.compiler.ir.nodes import dtype_of, shape_of
from strop.compiler.lower.onnx.emitter import Emitter
from strop.compiler.lower.onnx.products import integer_product
from strop.compiler.lower.onnx.refusal import NotLowered
from strop.compiler.lower.onnx.table import lowers

aten = torch.ops.aten
EXTREMES = ("ReduceMax", "ReduceMin")


def _axes(on: Emitter, x: Any, dims: Any) -> Any:
    """The axes as a value; None reduces over all, and where there is none."""
    rank = len(shape_of(x))
    if dims is None or dims == [] or not rank:
        return None
    return on.constant([d % rank for d in ([dims] if isinstance(dims, int) else dims)])


def _reduce(on: Emitter, op_type: str, x: Any, dims: Any, keepdim: bool) -> Any:
    if dtype_of(x) == torch.bool and op_type in EXTREMES:
        return _truth(on, op_type, x, dims, keepdim)
    dtype = dtype_of(x) if op_type in EXTREMES else dtype_of(on.node)
    return on.op(op_type, on.operand(x, dtype), _axes(on, x, dims), keepdims=int(keepdim))


@lowers(aten.mean.dim)
def mean(on: Emitter, x: Any, dims: Any, keepdim: bool, _: Any) -> Any:
    return _reduce(on, "ReduceMean", x, dims, keepdim)


@lowers(aten.mean.default)
def mean_all(on: Emitter, x: Any, _: Any) -> Any:
    return _reduce(on, "ReduceMean", x, None, False)


@lowers(aten.sum.dim_IntList)
def sum(on: Emitter, x: Any, dims: Any, keepdim: bool, _: Any) -> Any:
    if dtype_of(x) == torch.int64 == dtype_of(on.node):
        return _exact_sum(on, x, dims, keepdim)
    return _reduce(on, "ReduceSum", x, dims, keepdim)


@lowers(aten.sum.default)
def sum_all(on: Emitter, x: Any, dtype: Any) -> Any:
    return sum(on, x, None, False, dtype)


def _exact_sum(on: Emitter, x: Any, dims: Any, keepdim: bool) -> Any:
    """The runtime adds integers in floats: here the upper and the lower halves by themselves."""
    value, axes, half = on.value(x), _axes(on, x, dims), on.constant(2**32)
    low = on.op("BitwiseAnd", value, on.constant(2**32 - 1))
    high = on.op("Div", on.op("Sub", value, low), half)
    sums = [on.op("ReduceSum", part, axes, keepdims=int(keepdim)) for part in (high, low)]
    return on.op("Add", on.op("Mul", sums[0], half), sums[1])


@lowers(aten.prod.dim_int)
def prod(on: Emitter, x: Any, dim: int, keepdim: bool, _: Any) -> Any:
    if not dtype_of(on.node).is_floating_point:
        rank = len(shape_of(x))
        return integer_product(on, x, [dim % rank] if rank else [], keepdim)
    return _reduce(on, "ReduceProd", x, dim, keepdim)


@lowers(aten.amax.default)
def amax(on: Emitter, x: Any, dims: Any, keepdim: bool) -> Any:
    return _reduce(on, "ReduceMax", x, dims, keepdim)


@lowers(aten.amin.default)
def amin(on: Emitter, x: Any, dims: Any, keepdim: bool) -> Any:
    return _reduce(on, "ReduceMin", x, dims, keepdim)


@lowers(aten.max.default)
def max_all(on: Emitter, x: Any) -> Any:
    return _reduce(on, "ReduceMax", x, None, False)


@lowers(aten.min.default)
def min_all(on: Emitter, x: Any) -> Any:
    return _reduce(on, "ReduceMin", x, None, False)


@lowers(aten.max.dim)
def max_dim(on: Emitter, x: Any, dim: int, keepdim: bool) -> Any:
    return _extreme(on, "Max", x, dim, keepdim)


@lowers(aten.min.dim)
def min_dim(on: Emitter, x: Any, dim: int, keepdim: bool) -> Any:
    return _extreme(on, "Min", x, dim, keepdim)


def _extreme(on: Emitter, kind: str, x: Any, dim: int, keepdim: bool) -> Any:
    return _reduce(on, f"Reduce{kind}", x, dim, keepdim), _arg(on, f"Arg{kind}", x, dim, keepdim)


@lowers(aten.argmax.default)
def argmax(on: Emitter, x: Any, dim: int | None, keepdim: bool) -> Any:
    return _arg(on, "ArgMax", x, dim, keepdim)


@lowers(aten.argmin.default)
def argmin(on: Emitter, x: Any, dim: int | None, keepdim: bool) -> Any:
    return _arg(on, "ArgMin", x, dim, keepdim)


def _arg(on: Emitter, op_type: str, x: Any, dim: int | None, keepdim: bool) -> Any:
    # ONNX Runtime has no boolean kernel.
    value = on.operand(x, torch.int32 if dtype_of(x) == torch.bool else dtype_of(x))
    rank = len(shape_of(x))
    if dim is None or rank == 0:
        place = on.op(op_type, on.op("Reshape", value, on.constant([-1])), axis=0, keepdims=0)
        ones = on.constant([1] * rank)
        return on.op("Reshape", place, ones) if keepdim else place
    return on.op(op_type, value, axis=dim, keepdims=int(keepdim))


@lowers(aten.any.dim, aten.any.dims)
def any_dim(on: Emitter, x: Any, dim: Any, keepdim: bool) -> Any:
    return _truth(on, "ReduceMax", x, dim, keepdim)


@lowers(aten.all.dim, aten.all.dims)
def all_dim(on: Emitter, x: Any, dim: Any, keepdim: bool) -> Any:
    return _truth(on, "ReduceMin", x, dim, keepdim)


@lowers(aten.any.default)
def any_all(on: Emitter, x: Any) -> Any:
    return _truth(on, "ReduceMax", x, None, False)


@lowers(aten.all.default)
def all_all(on: Emitter, x: Any) -> Any:
    return _truth(on, "ReduceMin", x, None, False)


def _truth(on: Emitter, op_type: str, x: Any, dims: Any, keepdim: bool) -> Any:
    as_int = on.cast(on.operand(x, torch.bool), torch.int32)
    found = on.op(op_type, as_int, _axes(on, x, dims), keepdims=int(keepdim))
    # Without elements, the runtime's maximum is the lowest int32, which is not above 0.
    return on.op("Greater", found, on.constant(0, torch.int32))


@lowers(aten.var.default)
def var_all(on: Emitter, x: Any, unbiased: bool) -> Any:
    return var(on, x, None, unbiased, False)


@lowers(aten.std.default)
def std_all(on: Emitter, x: Any, unbiased: bool) -> Any:
    return std(on, x, None, unbiased, False)


@lowers(aten.var.correction, aten.var.dim)
def var(on: Emitter, x: Any, dims: Any, correction: Any, keepdim: bool) -> Any:
    value = on.value(x)
    axes = _axes(on, x, dims)
    centre = on.op("Sub", value, on.op("ReduceMean", value, axes, keepdims=1))
    square = on.op("Mul", centre, centre)
    if correction in (0, False):
        return on.op("ReduceMean", square, axes, keepdims=int(keepdim))
    count: Any = 1
    rank = len(shape_of(x))
    for d in range(rank) if dims in (None, []) else ([dims] if isinstance(dims, int) else dims):
        count = count * shape_of(x)[d]
    less = 1 if correction in (None, True) else correction
    total = on.op("ReduceSum", square, axes, keepdims=int(keepdim))
    number = on.op("Squeeze", on.size(count - less))
    return on.op("Div", total, on.cast(number, dtype_of(on.node)))


@lowers(aten.std.correction, aten.std.dim)
def std(on: Emitter, x: Any, dims: Any, correction: Any, keepdim: bool) -> Any:
    return on.op("Sqrt", var(on, x, dims, correction, keepdim))


@lowers(aten.linalg_vector_norm.default)
def vector_norm(on: Emitter, x: Any, order: float, dims: Any, keepdim: bool, _: Any) -> Any:
    if order in (math.inf, -math.inf):
        size = on.op("Abs", on.operand(x, dtype_of(on.node)))
        kind = "ReduceMax" if order > 0 else "ReduceMin"
        return on.op(kind, size, _axes(on, x, dims), keepdims=int(keepdim))
    if order not in (1, 2):
        raise NotLowered(f"vector norm of order {order}")
    return _reduce(on, f"ReduceL{int(order)}", x, dims, keepdim)


@lowers(aten.norm.ScalarOpt_dim)
def norm(on: Emitter, x: Any, order: Any, dims: Any, keepdim: bool) -> Any:
    return vector_norm(on, x, 2 if order is None else order, dims, keepdim, None)


@lowers(aten.softmax.int)
def softmax(on: Emitter, x: Any, dim: int, _: Any) -> Any:
    return _along(on, "Softmax", x, dim)


@lowers(aten._softmax.default)
def _softmax(on: Emitter, x: Any, dim: int, _: bool) -> Any:
    return softmax(on, x, dim, None)


@lowers(aten.log_softmax.int)
def log_softmax(on: Emitter, x: Any, dim: int, _: Any) -> Any:
    return _along(on, "LogSoftmax", x, dim)


def _along(on: Emitter, op_type: str, x: Any, dim: int) -> Any:
    """An operator along one axis; a tensor without axes gets one, which the runtime wants."""
    value = on.operand(x, dtype_of(on.node))
    if shape_of(x):
        return on.op(op_type, value, axis=dim)
    axis = on.constant([0])
    return on.op("Squeeze", on.op(op_type, on.op("Unsqueeze", value, axis), axis=0), axis)


@lowers(aten.logsumexp.default)
def logsumexp(on: Emitter, x: Any, dims: Any, keepdim: bool) -> Any:
    return _reduce(on, "ReduceLogSumExp", x, dims, keepdim)


@lowers(aten.cumsum.default)
def cumsum(on: Emitter, x: Any, dim: int, _: Any) -> Any:
    return on.op("CumSum", on.operand(x, dtype_of(on.node)), on.constant(dim))
