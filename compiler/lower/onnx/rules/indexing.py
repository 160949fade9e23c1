"""Reading and writing by index."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.fx.node import Node

from strop.compiler.ir.nodes import dtype_of, same_shape, shape_of, static_int
from strop.compiler.lower.onnx.emitter import Emitter
from strop.compiler.lower.onnx.positions import true_positions
from strop.compiler.lower.onnx.refusal import NotLowered
from strop.compiler.lower.onnx.sizes import END
from strop.compiler.lower.onnx.table import lowers

aten = torch.ops.aten
strop = torch.ops.strop


@lowers(aten.embedding.default)
def embedding(on: Emitter, weight: Any, indices: Any, *_: Any) -> Any:
    return on.op("Gather", on.value(weight), on.value(indices), axis=0)


@lowers(strop.embedding_int8.default)
def embedding_int8(on: Emitter, weight: Any, scale: Any, indices: Any) -> Any:
    table, index = on.int8(weight, scale), on.value(indices)
    rows = on.cast(on.op("Gather", table, index, axis=0), dtype_of(on.node))
    scales = on.op("Gather", on.value(scale), index, axis=0)
    return on.op("Mul", rows, on.op("Unsqueeze", scales, on.constant([-1])))


@lowers(aten.select.int)
def select(on: Emitter, x: Any, dim: int, index: Any) -> Any:
    at = static_int(index)
    if at is None:
        return on.op("Gather", on.value(x), on.op("Squeeze", on.size(index)), axis=dim)
    return on.op("Gather", on.value(x), on.constant(at), axis=dim)


@lowers(aten.index_select.default)
def index_select(on: Emitter, x: Any, dim: int, index: Any) -> Any:
    if not shape_of(x):
        return on.value(x)
    return on.op("Gather", on.value(x), on.value(index), axis=dim)


@lowers(aten.gather.default)
def gather(on: Emitter, x: Any, dim: int, index: Any, _: Any) -> Any:
    value, places = on.value(x), on.operand(index, torch.int64)
    if not shape_of(x) or not shape_of(index):  # then neither has more than one axis
        return on.op("Gather", on.op("Reshape", value, on.constant([-1])), places, axis=0)
    return on.op("GatherElements", value, places, axis=dim)


@lowers(aten.scatter.src, aten.scatter.value)
def scatter(on: Emitter, x: Any, dim: int, index: Any, src: Any) -> Any:
    if isinstance(src, Node):
        updates = _cropped(on, src, index)
    else:
        filler = on.operand(src, dtype_of(on.node))
        updates = on.op("Expand", filler, on.shape(list(shape_of(index))))
    return on.op("ScatterElements", on.value(x), on.value(index), updates, axis=dim)


@lowers(aten.select_scatter.default)
def select_scatter(on: Emitter, x: Any, src: Any, dim: int, index: Any) -> Any:
    at = static_int(index)
    if at is None:
        raise NotLowered("writing at a computed position")
    row = on.op("Unsqueeze", on.operand(src, dtype_of(x)), on.constant([dim % len(shape_of(x))]))
    return _between(on, x, row, dim, on.constant([at]), on.constant([END if at == -1 else at + 1]))


@lowers(aten.slice_scatter.default)
def slice_scatter(on: Emitter, x: Any, src: Any, dim: int, start: Any, end: Any, step: Any) -> Any:
    if static_int(step) != 1:
        raise NotLowered("writing to every n-th element")
    if static_int(shape_of(src)[dim]) == 0:
        return on.value(x)
    first, last = on.size(0 if start is None else start), on.size(END if end is None else end)
    return _between(on, x, on.operand(src, dtype_of(x)), dim, first, last)


def _between(on: Emitter, x: Any, middle: Any, dim: int, start: Any, end: Any) -> Any:
    """x with ``[start, end)`` of one axis replaced."""
    axis = on.constant([dim])
    head = on.op("Slice", on.value(x), on.constant([0]), start, axis)
    tail = on.op("Slice", on.value(x), end, on.constant([END]), axis)
    return on.op("Concat", head, middle, tail, axis=dim)


@lowers(aten.scatter_add.default)
def scatter_add(on: Emitter, x: Any, dim: int, index: Any, src: Any) -> Any:
    return on.op(
        "ScatterElements",
        on.value(x),
        on.value(index),
        _cropped(on, src, index),
        axis=dim,
        reduction="add",
    )


REDUCTIONS = {"sum": "add", "prod": "mul", "amax": "max", "amin": "min"}


@lowers(aten.scatter_reduce.two)
def scatter_reduce(
    on: Emitter, x: Any, dim: int, index: Any, src: Any, reduce: str, with_self: bool
) -> Any:
    if reduce not in REDUCTIONS or not with_self:
        raise NotLowered("a reduction that leaves out the old values, or a mean")
    if not shape_of(x):
        raise NotLowered("writing into a number")
    return on.op(
        "ScatterElements",
        on.value(x),
        on.value(index),
        _cropped(on, src, index),
        axis=dim,
        reduction=REDUCTIONS[reduce],
    )


def _cropped(on: Emitter, src: Any, index: Any) -> Any:
    """The part of ``src`` that ``index`` covers: torch allows a larger one."""
    if same_shape(shape_of(src), shape_of(index)):
        return on.value(src)
    starts = on.constant([0] * len(shape_of(src)))
    return on.op("Slice", on.value(src), starts, on.shape(list(shape_of(index))))


@lowers(aten.index.Tensor)
def index(on: Emitter, x: Any, indices: list[Any]) -> Any:
    """x[i0, i1, ...] with None for whole axes: Gather for one tensor, GatherND for several."""
    axes = [a for a, i in enumerate(indices) if i is not None]
    tensors = [i for i in indices if i is not None]
    if any(_is_mask(t) for t in tensors):
        return _index_by_masks(on, x, indices)
    if len(tensors) == 1:
        return on.op("Gather", on.value(x), on.value(tensors[0]), axis=axes[0])
    common = torch.broadcast_shapes(*(t.meta["val"].shape for t in tensors))
    shape = on.shape(list(common))
    parts = [on.op("Expand", on.operand(t, torch.int64), shape) for t in tensors]
    return _gather_nd(on, x, axes, parts, len(common))


def _index_by_masks(on: Emitter, x: Any, indices: list[Any]) -> Any:
    """The same with masks among the indices: each stands for the positions where it is true."""
    mask = indices[-1]
    if dtype_of(mask) == torch.bool and len(shape_of(mask)) == 1 and not any(indices[:-1]):
        return on.op("Compress", on.value(x), on.value(mask), axis=len(indices) - 1)
    axes: list[int] = []
    parts: list[Any] = []
    axis = 0
    for index in indices:
        found = [None] if index is None else _positions(on, index)
        axes += range(axis, axis + len(found)) if index is not None else []
        parts += found if index is not None else []
        axis += len(found)
    width = max(1, *(len(shape_of(i)) for i in indices if i is not None and not _is_mask(i)), 0)
    shape = on.op("Shape", functools.reduce(lambda a, b: on.op("Add", a, b), parts))
    return _gather_nd(on, x, axes, [on.op("Expand", p, shape) for p in parts], width)


def _is_mask(index: Any) -> bool:
    return dtype_of(index) in (torch.bool, torch.uint8)


def _positions(on: Emitter, index: Any) -> list[Any]:
    """Positions along each axis that an index or a mask covers, int64."""
    if not _is_mask(index):
        return [on.operand(index, torch.int64)]
    return list(true_positions(on, on.operand(index, torch.bool), len(shape_of(index))))


def _gather_nd(on: Emitter, x: Any, axes: list[int], parts: list[Any], width: int) -> Any:
    """Elements of x at positions given for some axes by tensors of one shape, of rank ``width``."""
    rank = len(shape_of(x))
    where = on.op("Concat", *(on.op("Unsqueeze", p, on.constant([-1])) for p in parts), axis=-1)
    front = [*axes, *(a for a in range(rank) if a not in axes)]
    value = on.value(x)
    if front != list(range(rank)):
        value = on.op("Transpose", value, perm=front)
    result = on.op("GatherND", value, where)
    together = axes == list(range(axes[0], axes[0] + len(axes)))
    lead = axes[0] if together else 0  # torch, too, puts the indexed axes first if they are apart
    if lead == 0:
        return result
    last_axes = range(width + lead, width + rank - len(axes))
    order = [*range(width, width + lead), *range(width), *last_axes]
    return on.op("Transpose", result, perm=order)


@lowers(aten.topk.default)
def topk(on: Emitter, x: Any, k: Any, dim: int, largest: bool, sorted_: bool) -> Any:
    return _top(on, x, on.size(k), dim, largest, sorted_)


def _top(on: Emitter, x: Any, k: Any, dim: int, largest: bool, ordered: bool = True) -> Any:
    """The largest or smallest along an axis, with their positions."""
    if not shape_of(x):
        return on.value(x), on.constant(0)
    truth = dtype_of(x) == torch.bool  # for which the runtime has no kernel
    value = on.operand(x, torch.int32 if truth else dtype_of(x))
    values, indices = on.op(
        "TopK", value, k, axis=dim, largest=int(largest), sorted=int(ordered), outputs=2
    )
    return on.cast(values, torch.bool) if truth else values, indices


@lowers(aten.argsort.default)
def argsort(on: Emitter, x: Any, dim: int, descending: bool) -> Any:
    return sort(on, x, dim, descending)[1]


@lowers(aten.sort.stable)
def sort_stable(on: Emitter, x: Any, stable: bool | None, dim: int, descending: bool) -> Any:
    return sort(on, x, dim, descending)


@lowers(aten.sort.default)
def sort(on: Emitter, x: Any, dim: int, descending: bool) -> Any:
    k = on.size(shape_of(x)[dim] if shape_of(x) else 1)
    return _top(on, x, k, dim, descending)


@lowers(aten.index_put.default)
def index_put(on: Emitter, x: Any, indices: list[Any], values: Any, accumulate: bool) -> Any:
    if any(i is None or dtype_of(i) == torch.bool for i in indices):
        if len(indices) == 1 and indices[0] is not None and not shape_of(values):
            mask = on.value(indices[0])
            extra = len(shape_of(x)) - len(shape_of(indices[0]))
            if extra:
                mask = on.op("Unsqueeze", mask, on.constant(list(range(-extra, 0))))
            new = on.operand(values, dtype_of(x))
            new = on.op("Add", on.value(x), new) if accumulate else new
            return on.op("Where", mask, new, on.value(x))
        raise NotLowered("index_put with whole axes or a boolean mask")
    common = torch.broadcast_shapes(*(i.meta["val"].shape for i in indices))
    shape = on.shape(list(common))
    parts = [
        on.op("Unsqueeze", on.op("Expand", on.operand(i, torch.int64), shape), on.constant([-1]))
        for i in indices
    ]
    rest = shape_of(x)[len(indices) :]
    updates = on.op("Expand", on.operand(values, dtype_of(x)), on.shape([*common, *rest]))
    where = on.op("Concat", *parts, axis=-1)
    return on.op(
        "ScatterND", on.value(x), where, updates, reduction="add" if accumulate else "none"
    )
