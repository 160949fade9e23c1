"""Operators whose results have sizes that depend on the data."""

from __future__ import annotations

from typing import Any

import torch

from strop.compiler.ir.nodes import dtype_of, shape_of, static_int
from strop.compiler.lower.onnx.emitter import Emitter
from strop.compiler.lower.onnx.positions import true_positions
from strop.compiler.lower.onnx.refusal import NotLowered
from strop.compiler.lower.onnx.sizes import END
from strop.compiler.lower.onnx.table import lowers

aten = torch.ops.aten


@lowers(aten.item.default, aten._local_scalar_dense.default)
def item(on: Emitter, x: Any) -> Any:
    """The number in a tensor of one element, as sizes are held: [1], int64 or float64."""
    number = torch.float64 if dtype_of(x).is_floating_point else torch.int64
    return on.op("Reshape", on.operand(x, number), on.constant([1]))


@lowers(aten.nonzero.default)
def nonzero(on: Emitter, x: Any) -> Any:
    mask = on.operand(x, torch.bool)
    if shape_of(x):
        return on.op("Transpose", on.op("NonZero", mask), perm=[1, 0])
    # Of a number torch says how often it is true, and no position.
    found = on.op("NonZero", on.op("Reshape", mask, on.constant([1])))
    none, axis = on.constant([0]), on.constant([1])
    return on.op("Slice", on.op("Transpose", found, perm=[1, 0]), none, none, axis)


@lowers(aten.nonzero_numpy.default, aten.where.default)
def nonzero_numpy(on: Emitter, x: Any) -> Any:
    mask = on.operand(x, torch.bool)
    if not shape_of(x):
        mask = on.op("Reshape", mask, on.constant([1]))
    return true_positions(on, mask, max(1, len(shape_of(x))))


@lowers(aten.argwhere.default)
def argwhere(on: Emitter, x: Any) -> Any:
    return nonzero(on, x)


@lowers(aten.masked_select.default)
def masked_select(on: Emitter, x: Any, mask: Any) -> Any:
    common = list(torch.broadcast_shapes(shape_of(x), shape_of(mask)))
    shape, all_of_it = on.shape(common), on.constant([-1])
    chosen = on.op("Reshape", on.op("Expand", on.value(mask), shape), all_of_it)
    values = on.op("Reshape", on.op("Expand", on.value(x), shape), all_of_it)
    return on.op("Compress", values, chosen, axis=0)


@lowers(aten.repeat_interleave.Tensor)
def repeat_interleave(on: Emitter, repeats: Any, output_size: Any) -> Any:
    index = _repeated(on, on.operand(repeats, torch.int64))
    dtype = dtype_of(repeats)
    return index if dtype == torch.int64 else on.cast(index, dtype)


@lowers(aten.repeat_interleave.self_Tensor)
def repeat_interleave_along(
    on: Emitter, x: Any, repeats: Any, dim: int | None, output_size: Any
) -> Any:
    value, axis = on.value(x), 0 if dim is None else dim
    if dim is None:
        value = on.op("Reshape", value, on.constant([-1]))
    counts = on.operand(repeats, torch.int64)
    if not shape_of(repeats) or static_int(shape_of(repeats)[0]) == 1:
        counts = on.op("Expand", counts, on.op("Shape", value, start=axis, end=axis + 1))
    return on.op("Gather", value, _repeated(on, counts), axis=axis)


def _repeated(on: Emitter, counts: Any) -> Any:
    """Each position as often as its count says: [2, 0, 3] -> [0, 0, 2, 2, 2], int64.

    An entry begins where those before it end; at each place stand as many steps as end there.
    """
    ends = on.op("CumSum", counts, on.constant(0))
    total = on.op("ReduceSum", counts, keepdims=1)
    room = on.op("Add", total, on.constant([1]))
    none = on.op("Expand", on.constant([0]), room)
    ones = on.op("Expand", on.constant([1]), on.op("Shape", ends))
    steps = on.op("ScatterElements", none, ends, ones, axis=0, reduction="add")
    kept = on.op("Slice", steps, on.constant([0]), total, on.constant([0]))
    return on.op("CumSum", kept, on.constant(0))


@lowers(aten._unique2.default)
def unique(on: Emitter, x: Any, *_: Any) -> Any:
    return _unique(on, on.op("Reshape", _comparable(on, x), on.constant([-1])), x, None)


@lowers(aten.unique_dim.default)
def unique_dim(on: Emitter, x: Any, dim: int, *_: Any) -> Any:
    return _unique(on, _comparable(on, x), x, dim)


def _unique(on: Emitter, values: Any, x: Any, axis: int | None) -> Any:
    """ONNX and torch both sort; where torch was not asked for an inverse, nothing reads it."""
    found, _, inverse, counts = on.op("Unique", values, axis=axis, sorted=1, outputs=4)
    if axis is None:
        inverse = on.op("Reshape", inverse, on.shape(list(shape_of(x))))
    return _restored(on, found, x), inverse, counts


@lowers(aten.unique_consecutive.default)
def unique_consecutive(on: Emitter, x: Any, inverse: bool, counts: bool, dim: int | None) -> Any:
    if dim is not None and len(shape_of(x)) != 1:
        raise NotLowered("runs of equal slices")
    values = on.op("Reshape", _comparable(on, x), on.constant([-1]))
    first = on.constant([1])
    before = on.op("Slice", values, on.constant([0]), on.constant([-1]), on.constant([0]))
    after = on.op("Slice", values, first, on.constant([END]), on.constant([0]))
    changed = on.op("Not", on.op("Equal", before, after))
    # The first element, where there is one, begins a run.
    one = on.op(
        "Expand", on.constant(True, torch.bool), on.op("Min", on.op("Shape", values), first)
    )
    begins = on.op("Concat", one, changed, axis=0)
    run = on.op("Sub", on.op("CumSum", on.cast(begins, torch.int64), on.constant(0)), first)
    starts = on.op("Gather", on.op("NonZero", begins), on.constant(0), axis=0)
    ends = on.op(
        "Slice",
        on.op("Concat", starts, on.op("Shape", values), axis=0),
        first,
        on.constant([END]),
        on.constant([0]),
    )
    found = _restored(on, on.op("Compress", values, begins, axis=0), x)
    return found, on.op("Reshape", run, on.shape(list(shape_of(x)))), on.op("Sub", ends, starts)


def _comparable(on: Emitter, x: Any) -> Any:
    """The values in a dtype in which ONNX Runtime sorts them."""
    kept = dtype_of(x) in (torch.float32, torch.float64, torch.int64)
    wide = torch.float32 if dtype_of(x).is_floating_point else torch.int64
    return on.value(x) if kept else on.operand(x, wide)


def _restored(on: Emitter, value: Any, x: Any) -> Any:
    dtype = dtype_of(x)
    kept = dtype in (torch.float32, torch.float64, torch.int64)
    return value if kept else on.cast(value, dtype)


@lowers(aten.bincount.default)
def bincount(on: Emitter, x: Any, weights: Any, minlength: Any) -> Any:
    index = on.operand(x, torch.int64)
    largest = on.op("ReduceMax", on.op("Concat", index, on.constant([-1]), axis=0), keepdims=1)
    length = on.op("Max", on.op("Add", largest, on.constant([1])), on.size(minlength))
    dtype = dtype_of(on.node)
    none = on.op("Expand", on.constant([0], dtype), length)
    if weights is None:
        what = on.op("Expand", on.constant([1], dtype), on.op("Shape", index))
    else:
        what = on.operand(weights, dtype)
    return on.op("ScatterElements", none, index, what, axis=0, reduction="add")
