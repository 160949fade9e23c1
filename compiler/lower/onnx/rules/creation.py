"""Tensors made from sizes and numbers."""

from __future__ import annotations

from typing import Any

import torch

from strop.compiler.ir.nodes import dtype_of, shape_of
from strop.compiler.lower.onnx.emitter import Emitter
from strop.compiler.lower.onnx.table import lowers

aten = torch.ops.aten


def _filled(on: Emitter, value: Any) -> Any:
    dtype, shape = dtype_of(on.node), list(shape_of(on.node))
    scalar = on.operand(value, dtype)
    return on.op("Expand", scalar, on.shape(shape)) if shape else scalar


@lowers(
    aten.full.default,
    aten.new_full.default,
    aten.full_like.default,
    aten.fill.Scalar,
    aten.fill.Tensor,
)
def full(on: Emitter, *arguments: Any) -> Any:
    value = arguments[1] if on.node.target is not aten.new_full.default else arguments[2]
    return _filled(on, value)


@lowers(
    aten.zeros.default,
    aten.zeros_like.default,
    aten.new_zeros.default,
    aten.empty.memory_format,
    aten.empty_like.default,
)
def zeros(on: Emitter, *_: Any) -> Any:
    return _filled(on, 0)


@lowers(aten.ones.default, aten.ones_like.default, aten.new_ones.default)
def ones(on: Emitter, *_: Any) -> Any:
    return _filled(on, 1)


@lowers(aten.scalar_tensor.default)
def scalar_tensor(on: Emitter, value: Any, *_: Any) -> Any:
    return on.operand(value, dtype_of(on.node))


@lowers(aten.arange.default)
def arange(on: Emitter, end: Any, *_: Any) -> Any:
    return _range(on, 0, end, 1)


@lowers(aten.arange.start)
def arange_start(on: Emitter, start: Any, end: Any, *_: Any) -> Any:
    return _range(on, start, end, 1)


@lowers(aten.arange.start_step)
def arange_step(on: Emitter, start: Any, end: Any, step: Any, *_: Any) -> Any:
    return _range(on, start, end, step)


def _range(on: Emitter, start: Any, end: Any, step: Any) -> Any:
    dtype = dtype_of(on.node)
    return on.op("Range", *(on.operand(v, dtype) for v in (start, end, step)))


@lowers(aten.one_hot.default)
def one_hot(on: Emitter, x: Any, classes: int) -> Any:
    depth = on.size(shape_of(on.node)[-1])
    if shape_of(x):
        return on.op("OneHot", on.value(x), depth, on.constant([0, 1]), axis=-1)
    # The runtime takes no scalar.
    row = on.op(
        "OneHot",
        on.op("Reshape", on.value(x), on.constant([1])),
        depth,
        on.constant([0, 1]),
        axis=-1,
    )
    return on.op("Reshape", row, on.constant([-1]))
