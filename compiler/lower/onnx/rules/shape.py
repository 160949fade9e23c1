"""Operators that move elements or change the shape."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import torch

from strop.compiler.ir.nodes import dtype_of, same_shape, same_size, shape_of, static_int
from strop.compiler.lower.onnx.emitter import Emitter
from strop.compiler.lower.onnx.refusal import NotLowered
from strop.compiler.lower.onnx.table import lowers

aten = torch.ops.aten
END = 2**63 - 1


@lowers(
    aten.view.default,
    aten.reshape.default,
    aten._unsafe_view.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.squeeze.default,
    aten.view_as.default,
    aten.reshape_as.default,
)
def reshape(on: Emitter, x: Any, *_: Any) -> Any:
    return on.reshape(on.value(x), shape_of(x), shape_of(on.node))


@lowers(aten.resize.default, aten.resize_as.default)
def resize(on: Emitter, x: Any, *_: Any) -> Any:
    """The first elements in memory in another shape."""
    old, new = shape_of(x), shape_of(on.node)
    if same_shape(old, new):
        return on.value(x)
    sizes = [static_int(s) for s in (*old, *new)]
    if None in sizes or not x.meta["val"].is_contiguous():
        raise NotLowered("resize_ at dynamic sizes, or of a tensor whose elements are not in order")
    before, after = (math.prod(map(int, s)) for s in (old, new))
    if after > before:
        raise NotLowered("resize_ to a larger tensor, which holds memory that nothing has written")
    flat = on.op("Reshape", on.value(x), on.constant([-1]))
    kept = on.op("Slice", flat, on.constant([0]), on.constant([after]), on.constant([0]))
    return on.op("Reshape", kept, on.shape(new), allowzero=1)


@lowers(aten.transpose.int)
def transpose(on: Emitter, x: Any, first: int, second: int) -> Any:
    order = list(range(len(shape_of(x))))
    order[first], order[second] = order[second], order[first]
    return on.op("Transpose", on.value(x), perm=order)


@lowers(aten.permute.default)
def permute(on: Emitter, x: Any, dims: list[int]) -> Any:
    rank = len(shape_of(x))
    return on.op("Transpose", on.value(x), perm=[d % rank for d in dims])


@lowers(aten.t.default, aten.mT.default, aten.numpy_T.default)
def swap_last(on: Emitter, x: Any) -> Any:
    rank = len(shape_of(x))
    if rank < 2:
        return on.value(x)
    order = list(range(rank))
    order[-1], order[-2] = order[-2], order[-1]
    return on.op("Transpose", on.value(x), perm=order)


@lowers(aten.unsqueeze.default)
def unsqueeze(on: Emitter, x: Any, dim: int) -> Any:
    return on.op("Unsqueeze", on.value(x), on.constant([dim % len(shape_of(on.node))]))


@lowers(aten.squeeze.dim, aten.squeeze.dims)
def squeeze(on: Emitter, x: Any, dims: Any) -> Any:
    rank = len(shape_of(x))
    if rank == 0:
        return on.value(x)
    wanted = [dims] if isinstance(dims, int) else list(dims)
    ones = [d % rank for d in wanted if same_size(shape_of(x)[d], 1)]
    return on.op("Squeeze", on.value(x), on.constant(ones)) if ones else on.value(x)


@lowers(aten.expand.default, aten.expand_as.default, aten.broadcast_to.default)
def expand(on: Emitter, x: Any, *_: Any) -> Any:
    old, new = shape_of(x), shape_of(on.node)
    lead = len(new) - len(old)
    kept = [axis >= lead and same_size(old[axis - lead], s) for axis, s in enumerate(new)]
    if all(kept):
        return on.value(x)
    # ONNX Expand broadcasts both ways, so 1 keeps an axis without naming its size.
    return on.op("Expand", on.value(x), on.shape([1 if k else s for k, s in zip(kept, new)]))


@lowers(aten.repeat.default)
def repeat(on: Emitter, x: Any, repeats: list[Any]) -> Any:
    value, lead = on.value(x), len(repeats) - len(shape_of(x))
    if lead:
        value = on.op("Unsqueeze", value, on.constant(list(range(lead))))
    return on.op("Tile", value, on.shape(repeats))


@lowers(aten.repeat_interleave.self_int)
def repeat_interleave(on: Emitter, x: Any, repeats: Any, dim: int | None, _: Any) -> Any:
    rank = len(shape_of(x))
    axis = rank - 1 if dim is None else dim % rank
    value = on.op("Unsqueeze", on.value(x), on.constant([axis + 1]))
    times = [repeats if i == axis + 1 else 1 for i in range(rank + 1)]
    value = on.op("Tile", value, on.shape(times))
    wide = [*shape_of(x)[: axis + 1], repeats, *shape_of(x)[axis + 1 :]]
    return on.reshape(value, wide, shape_of(on.node))


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


@lowers(aten.constant_pad_nd.default)
def constant_pad(on: Emitter, x: Any, pad: list[Any], value: Any) -> Any:
    return pad_mode(on, x, pad, "constant", value)


@lowers(aten.pad.default)
def pad_mode(on: Emitter, x: Any, pad: list[Any], mode: str, value: Any) -> Any:
    rank, count = len(shape_of(x)), len(pad) // 2
    if all(static_int(p) == 0 for p in pad):
        return on.value(x)
    axes, every = [rank - 1 - i for i in range(count)], on.constant(list(range(rank)))
    if mode == "constant":
        fill = on.operand(value or 0, on.node.meta["val"].dtype)
        # ONNX Runtime fuses a Pad that names no axes into MaxPool, whatever its value.
        return on.op("Pad", on.value(x), _amounts(on, rank, pad), fill, every, mode=mode)
    added, taken = _signs(pad)
    if mode == "circular":
        return _wrapped(on, _cropped(on, on.value(x), axes, taken), axes, added)
    how = {"reflect": "reflect", "replicate": "edge"}[mode]
    wide = on.op("Pad", on.value(x), _amounts(on, rank, added), None, every, mode=how)
    return _cropped(on, wide, axes, taken)


def _amounts(on: Emitter, rank: int, pad: list[Any]) -> Any:
    """What Pad adds before every axis, then after it, from torch's pairs for the last axes first.

    Every axis, in order: ONNX Runtime forgets other names where it moves a Transpose past Pad.
    """
    missing = [0] * (rank - len(pad) // 2)
    return on.shape([*missing, *pad[-2::-2], *missing, *pad[::-2]])


def _signs(pad: list[Any]) -> tuple[list[Any], list[int]]:
    """What padding adds, and what it takes away where it is negative."""
    fixed = [static_int(p) for p in pad]
    added = [p if n is None else max(n, 0) for p, n in zip(pad, fixed)]
    return added, [max(-(n or 0), 0) for n in fixed]


def _cropped(on: Emitter, value: Any, axes: list[int], taken: list[int]) -> Any:
    """A value without some elements at both ends of axes."""
    if not any(taken):
        return value
    starts = on.constant(taken[0::2])
    ends = on.constant([-n if n else END for n in taken[1::2]])
    return on.op("Slice", value, starts, ends, on.constant(axes))


def _wrapped(on: Emitter, value: Any, axes: list[int], pad: list[Any]) -> Any:
    """Circular padding: the end before the start, and the start behind the end."""
    for i, axis in enumerate(axes):
        before, after = pad[2 * i : 2 * i + 2]
        at, zero = on.constant([axis]), on.constant([0])
        last = on.op("Slice", value, on.op("Neg", on.size(before)), on.constant([END]), at)
        first = on.op("Slice", value, zero, on.size(after), at)
        parts = [value]
        parts = [last, *parts] if static_int(before) != 0 else parts
        parts = [*parts, first] if static_int(after) != 0 else parts
        value = on.op("Concat", *parts, axis=axis) if len(parts) > 1 else value
    return value


@lowers(aten.pixel_shuffle.default)
def pixel_shuffle(on: Emitter, x: Any, factor: int) -> Any:
    if len(shape_of(x)) != 4:
        raise NotLowered("pixel_shuffle of other than [batch, channels, height, width]")
    return on.op("DepthToSpace", on.value(x), blocksize=factor, mode="CRD")


@lowers(aten.triu.default)
def triu(on: Emitter, x: Any, diagonal: Any) -> Any:
    return on.op("Trilu", on.value(x), on.operand(diagonal, torch.int64), upper=1)


@lowers(aten.tril.default)
def tril(on: Emitter, x: Any, diagonal: Any) -> Any:
    return on.op("Trilu", on.value(x), on.operand(diagonal, torch.int64), upper=0)


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
