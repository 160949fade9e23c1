"""Element by element, with broadcasting."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx.node import Node

from strop.compiler.ir.nodes import tensors_of
from strop.compiler.ir.pointwise import is_pointwise
from strop.compiler.rewriting.pattern import is_weight
from strop.passes.prune.axes import Axes, Call
from strop.passes.prune.dims import Dim, leaf
from strop.passes.prune.roles import SUMMED, mark
from strop.passes.prune.rules.registry import rule

aten = torch.ops.aten


def broadcast(call: Call, *tensors: Sequence[Dim]) -> Axes:
    """The axes of tensors that are broadcast with each other; positions are paired."""
    rank = max(map(len, tensors), default=0)
    made: Axes = []
    for back in range(rank, 0, -1):
        here = [axes[-back] for axes in tensors if len(axes) >= back and axes[-back].of.size != 1]
        # A dim that may be of one position at run time is not paired with one that is not.
        here.sort(key=lambda dim: not isinstance(dim.size, int))
        for other in here[1:]:
            if other.size == here[0].size:
                call.tie(here[0], other)
            else:
                call.freeze("it meets an axis of another size", [here[0], other])
        made.append((here or [leaf(1)])[0])
    return made


def pointwise(call: Call) -> list[Axes]:
    """Every result has the axes of the arguments, broadcast."""
    made = broadcast(call, *call.tensors())
    if call.node.target is aten.add.Tensor and _adds_values(call):
        mark(SUMMED, *made)
    return [made for _ in call.shapes()]


def _adds_values(call: Call) -> bool:
    """Whether two computed tensors of one shape are added, as in a residual connection.

    An activation may add functions of one tensor to each other; that is none.
    """
    terms = [call.given[name] for name in ("self", "other")]
    if not all(isinstance(term, Node) and not is_weight(term) for term in terms):
        return False
    left, right = (call.axes(term) for term in terms)
    same = [dim.size for dim in left] == [dim.size for dim in right]
    return same and _computed_from(terms[0]) is not _computed_from(terms[1])


def _computed_from(node: Node) -> Node:
    """The tensor of which a value is a function, element by element."""
    while is_pointwise(node.target):
        read = [n for n in node.all_input_nodes if not is_weight(n) and tensors_of(n)]
        sources = {id(one): one for one in read}
        if len(sources) != 1:
            return node
        node = read[0]
    return node


@rule(aten.prelu.default)
def prelu(call: Call) -> list[Axes]:
    """One slope for each channel, or one for all."""
    x, slopes = call.axes("self"), call.axes("weight")
    if len(x) > 1 and slopes:
        broadcast(call, [x[1]], slopes)
    return [x]


@rule(aten.glu.default)
def glu(call: Call) -> list[Axes]:
    """Half of the channels gates the other half."""
    x = list(call.axes("self"))
    axis = call.axis("dim", len(x))
    halves = call.slices(x[axis], [call.shape()[axis]] * 2)
    call.tie(halves[0], halves[1])
    x[axis] = halves[0]
    return [x]
