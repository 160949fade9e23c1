"""Two layouts of heads: split, [batch, heads, seq, size], and packed, [batch, seq, heads*size]."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder, reordered
from strop.compiler.ir.families import VIEWS
from strop.compiler.ir.nodes import arg, input_node, same_size, shape_of

aten = torch.ops.aten


def axis_order(x: Node) -> list[int] | None:
    """Where each axis of x comes from, if x is its first argument with axes exchanged."""
    rank = len(shape_of(x))
    order = list(range(rank))
    if x.target is aten.permute.default:
        return [int(a) % rank for a in arg(x, 1)]
    if x.target is aten.transpose.int:
        first, second = arg(x, 1) % rank, arg(x, 2) % rank
    elif x.target in (aten.mT.default, aten.t.default):
        first, second = rank - 2, rank - 1
    else:
        return None
    order[first], order[second] = order[second], order[first]
    return order


def transposed_from(x: Any, first: int, second: int) -> Node | None:
    """The value of which x is the transpose of two axes, or None."""
    found = axis_order(x) if isinstance(x, Node) and x.op == "call_function" else None
    if found is None or len(found) < 2:
        return None
    wanted = list(range(len(found)))
    wanted[first], wanted[second] = wanted[second], wanted[first]
    return input_node(x) if found == wanted else None


def transposed(x: Node, build: Builder) -> Node:
    """x with its last two axes exchanged; where x is made by exchanging axes, by other ones."""
    order = axis_order(x) if x.op == "call_function" else None
    if order is None:
        return build.call(aten.transpose.int, x, -2, -1)
    order[-2:] = order[:-3:-1]
    return reordered(input_node(x), order, build)


def keeps_last_axis(view: Node) -> bool:
    """Whether a view of another shape leaves the rows, elements of the last axis, alone."""
    old, new = shape_of(arg(view, 0)), shape_of(view)
    return bool(old) and same_size(old[-1], new[-1])


def pack_heads(x: Node, build: Builder) -> Node | None:
    """The packed form of split heads, if they were made by a transpose; else None."""
    rows = transposed_from(x, 1, 2)
    if rows is None:
        return None
    if rows.target in VIEWS:
        source = input_node(rows)
        old, new = shape_of(source), shape_of(rows)
        if len(old) == 3 and all(same_size(a, b) for a, b in zip(old[:2], new[:2])):
            return source
    return build.call(aten.flatten.using_ints, rows, 2)


def unpack_heads(x: Node, heads: int, build: Builder) -> Node:
    """Split heads again: the transposes that follow cancel against these."""
    size = int(shape_of(x)[-1]) // heads
    rows = build.call(aten.unflatten.int, x, -1, [heads, size])
    return build.call(aten.transpose.int, rows, 1, 2)
