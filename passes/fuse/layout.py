"""Two layouts of heads: split, [batch, heads, seq, size], and packed, [batch, seq, heads*size]."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx.node import Node

from strop.compiler.build_nodes import Builder
from strop.compiler.program import arg, input_node, same_size, shape_of
from strop.passes.cleanup.noops import VIEWS

aten = torch.ops.aten


def transposed_from(x: Any, first: int, second: int) -> Node | None:
    """The value of which x is the transpose of two axes, or None."""
    if not isinstance(x, Node):
        return None
    rank = len(shape_of(x))
    wanted = list(range(rank))
    wanted[first], wanted[second] = wanted[second], wanted[first]
    if x.target is aten.transpose.int:
        found = {arg(x, 1) % rank, arg(x, 2) % rank} == {first % rank, second % rank}
    elif x.target is aten.permute.default:
        found = [int(a) % rank for a in arg(x, 1)] == wanted
    else:
        found = x.target is aten.mT.default and wanted[-2:] == [rank - 1, rank - 2]
    return input_node(x) if found else None


def pack_heads(x: Node, build: Builder) -> Node | None:
    """The packed form of split heads that were made by a transpose; None if they were not."""
    rows = transposed_from(x, 1, 2)
    if rows is None or len(shape_of(rows)) != 4:
        return None
    if rows.target in VIEWS and isinstance(rows.args[0], Node):
        source = rows.args[0]
        old, new = shape_of(source), shape_of(rows)
        if len(old) == 3 and all(same_size(a, b) for a, b in zip(old[:2], new[:2])):
            return source
    return build.call(aten.flatten.using_ints, rows, 2)


def unpack_heads(x: Node, heads: int, build: Builder) -> Node:
    """Split heads again: the transposes that follow cancel against these."""
    size = int(shape_of(x)[-1]) // heads
    rows = build.call(aten.unflatten.int, x, -1, [heads, size])
    return build.call(aten.transpose.int, rows, 1, 2)
