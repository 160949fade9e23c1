"""The same elements under another shape or order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from strop.compiler.ir.families import VIEWS
from strop.passes.prune.axes import Axes, Call, axes_of, fresh
from strop.passes.prune.dims import Dim, Size, leaf, product
from strop.passes.prune.roles import COPIES, mark
from strop.passes.prune.rules.registry import rule

aten = torch.ops.aten


@rule(*VIEWS)
def view(call: Call) -> list[Axes]:
    """Axes are merged and cut; a size that is written down follows from the axis that it gives."""
    made = reshaped(call, call.axes(next(iter(call.given))), call.shape())
    if "size" in call.given:
        call.bake_sizes("size", made)
    elif "shape" in call.given:
        call.bake_sizes("shape", made)
    elif "sizes" in call.given:
        first = call.axis("dim", len(call.axes("self")))
        call.bake_sizes("sizes", made[first : first + len(call.given["sizes"])])
    return [made]


@rule(aten.reshape_as.default, aten.view_as.default)
def view_as(call: Call) -> list[Axes]:
    """The shape of another tensor, whose axes the result has then."""
    made = reshaped(call, call.axes("self"), call.shape())
    for dim, other in zip(made, call.axes("other")):
        call.tie(dim, other)
    return [made]


def reshaped(call: Call, old: Sequence[Dim], shape: Sequence[Size]) -> Axes:
    """Walk over the old and the new axes; where their products meet, a run of axes ends."""
    if any(dim.size == 0 for dim in old):
        call.freeze("it has no elements", old)
        return fresh(shape)
    made: Axes = []
    left, right = list(old), list(shape)
    while left or right:
        read, wanted = _run(left, right)
        if len(read) == len(wanted) == 1:
            made.append(read[0])
        else:
            made.extend(call.cut(product(read), wanted))
    return made


def _run(left: Axes, right: list[Size]) -> tuple[Axes, list[Size]]:
    """Take the fewest axes off both lists that hold equally many elements."""
    read, wanted = left[:1], right[:1]
    del left[:1], right[:1]
    if not read or not wanted:
        return read, wanted
    many, asked = read[0].size, wanted[0]
    while many != asked and (left or right):
        if right and (not left or _smaller(asked, many)):
            wanted.append(right[0])
            asked = asked * right.pop(0)
        else:
            read.append(left[0])
            many = many * left.pop(0).size
    return read, wanted


def _smaller(one: Size, other: Size) -> bool:
    """Whether a size divides another, or is the smaller number."""
    if isinstance(one, int) and isinstance(other, int):
        return one < other
    return bool((other / one).is_polynomial()) if one != 0 else False


@rule(
    aten.transpose.int, aten.permute.default, aten.t.default, aten.movedim.intlist, aten.movedim.int
)
def reorder(call: Call) -> list[Axes]:
    """Axes in another order."""
    x = list(call.axes("self"))
    if call.node.target is aten.permute.default:
        return [[x[int(i)] for i in call.given["dims"]]]
    if "source" in call.given:
        return [_moved(x, call)]
    a, b = (0, 1) if "dim0" not in call.given else (call.given["dim0"], call.given["dim1"])
    if len(x) > 1:
        x[a], x[b] = x[b], x[a]
    return [x]


def _moved(x: Axes, call: Call) -> Axes:
    sources, targets = (axes_of(call.given[name], x) for name in ("source", "destination"))
    places = dict(zip(targets, sources))
    rest = iter(i for i in range(len(x)) if i not in sources)
    return [x[places[i]] if i in places else x[next(rest)] for i in range(len(x))]


@rule(aten.unsqueeze.default)
def unsqueeze(call: Call) -> list[Axes]:
    """A new axis of one position."""
    x = list(call.axes("self"))
    x.insert(call.axis("dim", len(x) + 1), leaf(1))
    return [x]


@rule(aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims)
def squeeze(call: Call) -> list[Axes]:
    """Without axes of one position."""
    x = call.axes("self")
    wanted = axes_of(call.given.get("dim", range(len(x))), x)
    return [[dim for i, dim in enumerate(x) if i not in wanted or dim.size != 1]]


@rule(aten.expand.default, aten.broadcast_to.default, aten.expand_as.default)
def expand(call: Call) -> list[Axes]:
    """Axes of one position are repeated; each copy is alike, so a new axis is as free as any."""
    x, shape = call.axes("self"), call.shape()
    made = fresh(shape)
    offset = len(shape) - len(x)
    for i, dim in enumerate(x):
        if dim.size != 1 or made[offset + i].size == 1:
            made[offset + i] = dim
    mark(COPIES, *(made[offset + i] for i, dim in enumerate(x) if dim is not made[offset + i]))
    if "size" in call.given:
        call.bake_sizes("size", made)
    else:
        for dim, other in zip(made, call.axes("other")):
            call.tie(dim, other)
    return [made]


@rule(aten.repeat.default)
def repeat(call: Call) -> list[Axes]:
    """The whole tensor again: the outer factor of an axis counts the copies."""
    x, times = call.axes("self"), list(call.given["repeats"])
    offset = len(times) - len(x)
    made: Axes = []
    for i, size in enumerate(call.shape()):
        dim = x[i - offset] if i >= offset else leaf(1)
        made.append(dim if dim.size == size else _repeated(call, dim, size))
    return [made]


def _repeated(call: Call, dim: Dim, size: Size) -> Dim:
    """Copies one after another: dropping a copy is not what the argument can say."""
    copies = leaf(size if dim.size == 1 else _quotient(size, dim.size))
    call.freeze("it counts copies", [copies])
    return product([copies, dim])


def _quotient(size: Size, part: Size) -> Size:
    return size // part if isinstance(size, int) and isinstance(part, int) else size / part


@rule(aten.repeat_interleave.self_int)
def repeat_interleave(call: Call) -> list[Axes]:
    """Every position again: the inner factor of an axis counts the copies."""
    x = list(call.axes("self"))
    times: Any = call.given["repeats"]
    if call.given["dim"] is None or not isinstance(times, int):
        made = fresh(call.shape())
        call.freeze("copies of one flat axis", [*x, *made])
        return [made]
    axis, copies = call.axis("dim", len(x)), leaf(times)
    mark(COPIES, copies)
    x[axis] = product([x[axis], copies])
    call.bake("repeats", [copies], lambda new: int(new[0]))
    return [x]
