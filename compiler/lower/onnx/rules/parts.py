"""Parts of tensors: slices, splits, joins, and the same elements in another order."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import torch

from strop.compiler.ir.nodes import dtype_of, same_size, shape_of, static_int
from strop.compiler.lower.onnx.emitter import Emitter
from strop.compiler.lower.onnx.refusal import NotLowered
from strop.compiler.lower.onnx.sizes import END
from strop.compiler.lower.onnx.table import lowers

aten = torch.ops.aten


@lowers(aten.slice.Tensor)
def slice(on: Emitter, x: Any, dim: int, start: Any, end: Any, step: Any) -> Any:
    old, new = shape_of(x)[dim], shape_of(on.node)[dim]
    if same_size(old, new):
        return on.value(x)
    first = on.size(0 if start is None else start)
    last = on.size(END if end is None else end)
    return on.op("Slice", on.value(x), first, last, on.constant([dim]), on.size(step))


@lowers(aten.narrow.default)
def narrow(on: Emitter, x: Any, dim: int, start: Any, length: Any) -> Any:
    first = on.size(start)
    ends = static_int(start), static_int(length)
    if None not in ends and ends[0] < 0 and sum(ends) == 0:  # type: ignore[operator,arg-type]
        last = on.size(END)
    else:
        last = on.op("Add", first, on.size(length))
    return on.op("Slice", on.value(x), first, last, on.constant([dim]))


@lowers(
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.split.sizes,
    aten.chunk.default,
    aten.unsafe_split.Tensor,
    aten.tensor_split.sections,
)
def split(on: Emitter, x: Any, sizes: Any, dim: int) -> Any:
    parts = on.node.meta["val"]
    lengths = [p.shape[dim] for p in parts]
    if len(parts) == 1:
        return (on.value(x),)
    return on.op("Split", on.value(x), on.shape(lengths), axis=dim, outputs=len(parts))


@lowers(aten.tensor_split.tensor_indices_or_sections)
def split_at(on: Emitter, x: Any, places: Any, dim: int) -> Any:
    """The parts between places that a tensor holds."""
    count = static_int(shape_of(places)[0]) if shape_of(places) else None
    if count is None:
        raise NotLowered("as many parts as a tensor says")
    value, where, axis = on.value(x), on.operand(places, torch.int64), on.constant([dim])
    inner = [
        on.op("Slice", where, on.constant([i]), on.constant([i + 1]), on.constant([0]))
        for i in range(count)
    ]
    edges = [on.constant([0]), *inner, on.constant([END])]
    return tuple(
        on.op("Slice", value, start, end, axis) for start, end in itertools.pairwise(edges)
    )


@lowers(aten.unbind.int)
def unbind(on: Emitter, x: Any, dim: int) -> Any:
    parts = on.node.meta["val"]
    axis = on.constant([dim])
    if len(parts) == 1:
        return (on.op("Squeeze", on.value(x), axis),)
    pieces = on.op("Split", on.value(x), axis=dim, num_outputs=len(parts), outputs=len(parts))
    return tuple(on.op("Squeeze", p, axis) for p in pieces)


@lowers(aten.cat.default, aten.concat.default)
def cat(on: Emitter, tensors: list[Any], dim: int) -> Any:
    dtype = on.node.meta["val"].dtype
    filled = [t for t in tensors if math.prod(_known(t)) != 0] or tensors[:1]
    parts = [on.operand(t, dtype) for t in filled]
    return on.op("Concat", *parts, axis=dim) if len(parts) > 1 else parts[0]


def _known(node: Any) -> list[int]:
    """Sizes that are numbers: a product of 0 means the tensor is empty at every dynamic size."""
    return [int(s) for s in shape_of(node) if not isinstance(s, torch.SymInt)]


@lowers(aten.stack.default)
def stack(on: Emitter, tensors: list[Any], dim: int) -> Any:
    dtype = on.node.meta["val"].dtype
    axis = dim % len(shape_of(on.node))
    parts = [on.op("Unsqueeze", on.operand(t, dtype), on.constant([axis])) for t in tensors]
    return on.op("Concat", *parts, axis=axis)


@lowers(aten.flip.default)
def flip(on: Emitter, x: Any, dims: list[int]) -> Any:
    count = len(dims)
    return on.op(
        "Slice",
        on.value(x),
        on.constant([-1] * count),
        on.constant([-END] * count),
        on.constant(dims),
        on.constant([-1] * count),
    )


@lowers(aten.roll.default)
def roll(on: Emitter, x: Any, shifts: list[int], dims: list[int]) -> Any:
    value = on.value(x)
    if not dims:
        flat = on.op("Reshape", value, on.constant([-1]))
        flat = _roll(on, flat, x.meta["val"].numel(), shifts[0], 0)
        return on.op("Reshape", flat, on.shape(shape_of(x)))
    for shift, dim in zip(shifts, dims):
        value = _roll(on, value, shape_of(x)[dim], shift, dim)
    return value


def _roll(on: Emitter, value: Any, size: Any, shift: Any, dim: int) -> Any:
    """Cut off the last ``shift`` elements and put them in front; shifts wrap round."""
    fixed, moved = static_int(size), static_int(shift)
    if fixed is not None and moved is not None:
        cut = on.constant([-moved % fixed if fixed else 0])
    else:
        cut = on.op("Mod", on.op("Neg", on.size(shift)), on.size(size))
    axis = on.constant([dim])
    tail = on.op("Slice", value, cut, on.constant([END]), axis)
    head = on.op("Slice", value, on.constant([0]), cut, axis)
    return on.op("Concat", tail, head, axis=dim)


@lowers(aten.diff.default)
def diff(on: Emitter, x: Any, n: int, dim: int, prepend: Any, append: Any) -> Any:
    if n != 1:
        raise NotLowered("differences of order above 1")
    given = [t for t in (prepend, x, append) if t is not None]
    value = on.value(x) if len(given) == 1 else cat(on, given, dim)
    axis = on.constant([dim])
    later = on.op("Slice", value, on.constant([1]), on.constant([END]), axis)
    earlier = on.op("Slice", value, on.constant([0]), on.constant([-1]), axis)
    op_type = "Xor" if dtype_of(on.node) == torch.bool else "Sub"
    return on.op(op_type, later, earlier)


@lowers(aten.unfold.default)
def unfold(on: Emitter, x: Any, dim: int, size: int, step: int) -> Any:
    rank = len(shape_of(x))
    if rank == 0:
        return on.op("Reshape", on.value(x), on.shape(list(shape_of(on.node))))
    axis = dim % rank
    first = on.constant(np.arange(size)[None])
    value = on.op("Gather", on.value(x), _starts(on, axis, step, first), axis=axis)
    order = [a for a in range(rank + 1) if a != axis + 1] + [axis + 1]
    return on.op("Transpose", value, perm=order)


def _starts(on: Emitter, axis: int, step: int, first: Any) -> Any:
    """Positions [windows, width] of the windows that a result has, given those of the first."""
    windows = shape_of(on.node)[axis]
    count = static_int(windows)
    if count is not None:
        starts = on.constant(np.arange(count)[:, None] * step)
    else:
        number = on.op("Squeeze", on.size(windows))
        places = on.op("Range", on.constant(0), number, on.constant(1))
        starts = on.op("Mul", on.op("Unsqueeze", places, on.constant([1])), on.constant(step))
    return on.op("Add", starts, first)
