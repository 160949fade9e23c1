"""Parts of a tensor chosen by number."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch.fx.node import Node

from strop.compiler.ir.nodes import static_int
from strop.passes.prune.axes import Axes, Call, axes_of, fresh
from strop.passes.prune.dims import leaf
from strop.passes.prune.rules.pointwise import broadcast
from strop.passes.prune.rules.registry import rule

aten = torch.ops.aten
CHOSEN = "its positions are chosen by number"


@rule(aten.embedding.default)
def embedding(call: Call) -> list[Axes]:
    """Rows of a table, chosen by the values of the indices."""
    table = call.axes("weight")
    call.freeze("its rows are chosen by values", table[:1])
    return [[*call.axes("indices"), *table[1:]]]


@rule(aten.select.int)
def select(call: Call) -> list[Axes]:
    """One position of an axis."""
    x = list(call.axes("self"))
    call.freeze(CHOSEN, [x.pop(call.axis("dim", len(x)))])
    return [x]


@rule(aten.slice.Tensor, aten.narrow.default)
def cut_out(call: Call) -> list[Axes]:
    """A range of positions: the axis is what lies before it, the range, and what lies behind it."""
    x = list(call.axes("self"))
    axis = call.axis("dim", len(x))
    bounds = _bounds(call, x[axis].size)
    size = call.shape()[axis]
    if bounds is None or x[axis].size == size:
        if x[axis].size != size:
            call.freeze(CHOSEN, [x[axis]])
            x[axis] = leaf(size)
            call.freeze(CHOSEN, [x[axis]])
        return [x]
    start, end = bounds
    sizes = [start, end - start, int(x[axis].size) - end]
    present = [s for s in sizes if s]
    parts = iter(call.slices(x[axis], present))
    before, taken, _ = (next(parts) if s else leaf(1) for s in sizes)
    _bake_bounds(call, [before] if start else [], taken, to_the_end=sizes[2] == 0)
    x[axis] = taken
    return [x]


def _bounds(call: Call, size: Any) -> tuple[int, int] | None:
    """Where a range begins and ends; None if it is not the same at every dynamic size."""
    given = call.given
    if not isinstance(size, int) or given.get("step", 1) != 1:
        return None
    if call.node.target is aten.narrow.default:
        start, length = static_int(given["start"]), static_int(given["length"])
        if start is None or length is None:
            return None
        start %= size
        return start, start + length
    start = 0 if given["start"] is None else static_int(given["start"])
    end = size if given["end"] is None else static_int(given["end"])
    if start is None or end is None:
        return None
    start, end = (max(0, min(size, n + size if n < 0 else n)) for n in (start, end))
    return (start, end) if start < end else None


def _bake_bounds(call: Call, before: Axes, taken: Any, to_the_end: bool) -> None:
    if before:
        call.bake("start", before, lambda new: int(new[0]))
    if call.node.target is aten.narrow.default:
        call.bake("length", [taken], lambda new: int(new[0]))
    else:
        end = sys.maxsize
        call.bake("end", [*before, taken], lambda new: end if to_the_end else int(sum(new)))


@rule(aten.index.Tensor)
def index(call: Call) -> list[Axes]:
    """Rows chosen by tensors of numbers; axes without one go through."""
    x, indices = call.axes("self"), list(call.given["indices"])
    indices += [None] * (len(x) - len(indices))
    chosen = [i for i, one in enumerate(indices) if one is not None]
    plain = all(isinstance(indices[i], Node) for i in chosen) and not any(
        indices[i].meta["val"].dtype in (torch.bool, torch.uint8) for i in chosen
    )
    if not plain or not chosen:
        return call.unknown()
    call.freeze(CHOSEN, [x[i] for i in chosen])
    by = broadcast(call, *(call.axes(indices[i]) for i in chosen))
    together = chosen == list(range(chosen[0], chosen[-1] + 1))
    first = chosen[0] if together else 0
    rest = [dim for i, dim in enumerate(x) if i not in chosen]
    return [[*rest[:first], *by, *rest[first:]]]


@rule(aten.index_select.default)
def index_select(call: Call) -> list[Axes]:
    """Positions of one axis, chosen by a tensor of numbers."""
    x = list(call.axes("self"))
    axis = call.axis("dim", len(x))
    call.freeze(CHOSEN, [x[axis]])
    x[axis] = call.axes("index")[0] if call.axes("index") else leaf(1)
    return [x]


@rule(aten.gather.default)
def gather(call: Call) -> list[Axes]:
    """Elements chosen along one axis; the index has as many along each other."""
    x, by = call.axes("self"), call.axes("index")
    axis = call.axis("dim", len(x))
    call.freeze(CHOSEN, [*x[axis : axis + 1], *by[axis : axis + 1]])
    for i, (dim, other) in enumerate(zip(x, by)):
        if i != axis:
            if dim.size == other.size:
                call.tie(dim, other)
            else:
                call.freeze(CHOSEN, [dim, other])
    return [by]


@rule(aten.roll.default, aten.flip.default)
def moved(call: Call) -> list[Axes]:
    """The same positions in another order."""
    x = call.axes("self")
    axes = axes_of(call.given["dims"], x)
    call.freeze("it moves positions", [x[i] for i in axes] if axes else x)
    return [x] if axes else [fresh(call.shape())]


@rule(aten.tril.default, aten.triu.default)
def triangle(call: Call) -> list[Axes]:
    """Zeros on one side of a diagonal."""
    x = call.axes("self")
    call.freeze("a diagonal depends on places", x[-2:])
    return [x]
