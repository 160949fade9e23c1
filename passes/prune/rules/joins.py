"""Tensors one after another, and the reverse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from strop.compiler.ir.families import PADS
from strop.passes.prune.axes import Axes, Call, fresh
from strop.passes.prune.dims import Dim, leaf, total
from strop.passes.prune.rules.pointwise import broadcast
from strop.passes.prune.rules.registry import rule

aten = torch.ops.aten


@rule(aten.cat.default)
def cat(call: Call) -> list[Axes]:
    """The axis along which tensors follow one another is the sum of theirs."""
    tensors = [call.axes(node) for node in call.given["tensors"]]
    tensors = [axes for axes in tensors if len(axes) == len(call.shape())]
    axis = call.axis("dim", len(call.shape()))
    made = [_same(call, [axes[i] for axes in tensors]) for i in range(len(call.shape()))]
    ends = [axes[axis] for axes in tensors]
    if all(isinstance(dim.size, int) for dim in ends):
        made[axis] = total(ends)
    else:
        call.freeze("it is joined to an axis of a dynamic size", ends)
        made[axis] = leaf(call.shape()[axis])
    return [made]


def _same(call: Call, dims: Sequence[Dim]) -> Dim:
    """The axes of several tensors, tied where they are of one size."""
    if any(dim.size != dims[0].size for dim in dims):
        return dims[0]
    return broadcast(call, *([dim] for dim in dims))[0]


@rule(aten.stack.default)
def stack(call: Call) -> list[Axes]:
    """A new axis with a position for each tensor."""
    made = broadcast(call, *(call.axes(node) for node in call.given["tensors"]))
    new = leaf(len(call.given["tensors"]))
    call.freeze("it counts tensors", [new])
    made.insert(call.axis("dim", len(made) + 1), new)
    return [made]


@rule(aten.split.Tensor, aten.split_with_sizes.default, aten.chunk.default)
def split(call: Call) -> list[Axes]:
    """Parts of an axis, one after another."""
    x = call.axes("self")
    axis = call.axis("dim", len(x))
    sizes = [shape[axis] for shape in call.shapes()]
    if len(sizes) == 1:
        return [x]
    if not all(isinstance(size, int) and size for size in sizes):
        call.freeze("its parts have dynamic sizes", [x[axis]])
        parts = fresh(sizes)
    else:
        parts = call.slices(x[axis], sizes)
    _bake_parts(call, parts)
    return [[*x[:axis], part, *x[axis + 1 :]] for part in parts]


def _bake_parts(call: Call, parts: Axes) -> None:
    """Parts of one size stay so; others can be written down only as a list of sizes."""
    if call.node.target is aten.split_with_sizes.default:
        call.bake_sizes("split_sizes", parts)
        return
    for part in parts[1:]:
        if part.size == parts[0].size:
            call.tie(parts[0], part)
        else:
            call.freeze("its parts are of one size but for the last", parts)
    if call.node.target is aten.split.Tensor:
        call.bake("split_size", parts[:1], lambda new: int(new[0]))


@rule(aten.unbind.int)
def unbind(call: Call) -> list[Axes]:
    """A tensor for each position of an axis."""
    x = list(call.axes("self"))
    call.freeze("each of its positions is a tensor", [x.pop(call.axis("dim", len(x)))])
    return [x for _ in call.shapes()]


@rule(*PADS)
def pad(call: Call) -> list[Axes]:
    """More positions at the ends of axes."""
    x = list(call.axes("self"))
    amounts: Any = list(call.given["pad"])
    for i in range(len(amounts) // 2):
        axis = len(x) - 1 - i
        if x[axis].size != call.shape()[axis]:
            call.freeze("it is padded", [x[axis]])
            x[axis] = leaf(call.shape()[axis])
            call.freeze("it is padded", [x[axis]])
    return [x]
