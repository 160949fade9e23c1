"""Operators that change the shape, the order of axes, or how often elements are repeated."""

from __future__ import annotations

import math
from typing import Any

import torch

from strop.compiler.ir.nodes import same_shape, same_size, shape_of, static_int
from strop.compiler.lower.onnx.emitter import Emitter
from strop.compiler.lower.onnx.refusal import NotLowered
from strop.compiler.lower.onnx.table import lowers

aten = torch.ops.aten


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
