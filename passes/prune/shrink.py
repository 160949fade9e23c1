"""Drop positions of groups from a program: smaller weights, sizes in arguments, types of values."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import sympy
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.node import Node

from strop.compiler.ir.builder import fake_mode_of, fake_result
from strop.compiler.ir.nodes import argument_names, arguments, expression
from strop.compiler.ir.program import Program
from strop.passes.prune.axes import Baked, Dependencies
from strop.passes.prune.dims import Dim, leaves, positions_after, size_after

Kept = Mapping[Dim, Sequence[int]]
"""The positions that leaves keep, in order; those of other leaves all stay."""


def shrink(program: Program, found: Dependencies, kept: Kept, made_by: str) -> list[str]:
    """Drop positions from the program that was analysed, in place; returns the weights changed.

    Args:
        program: the one in ``found``.
        found: its dependencies.
        kept: what stays.
        made_by: the pass, for provenance.
    """
    changed = _shrink_weights(program, found, kept, made_by)
    baked: dict[Node, list[Baked]] = {}
    for one in found.baked:
        if any(leaf in kept for leaf in leaves(*one.dims)):
            baked.setdefault(one.node, []).append(one)
    dirty: set[Node] = set()
    mode = fake_mode_of(program)
    for node in program.graph.nodes:
        if node.op == "get_attr" and str(node.target) in changed:
            weight = program.weights[str(node.target)]
            node.meta["val"] = mode.from_tensor(weight, static_shapes=True)
            dirty.add(node)
        for one in baked.get(node, ()):
            _rewrite(one, kept)
        if node in baked or not dirty.isdisjoint(node.all_input_nodes):
            _retype(node, mode, dirty)
    return changed


def _shrink_weights(program: Program, found: Dependencies, kept: Kept, made_by: str) -> list[str]:
    changed = []
    for name, axes in found.weights.items():
        indices = {
            axis: positions_after(dim, kept)
            for axis, dim in enumerate(axes)
            if any(one in kept for one in leaves(dim))
        }
        if indices:
            program.shrink_weight(name, indices, made_by)
            changed.append(name)
    return changed


def _rewrite(baked: Baked, kept: Kept) -> None:
    """Give an argument the value that follows from the new sizes."""
    node = baked.node
    value = baked.value([size_after(dim, kept) for dim in baked.dims])
    if isinstance(value, list):
        value = [_computed(node, v, d, kept) for v, d in zip(value, baked.dims)]
    place = argument_names(node).index(baked.argument)
    if place < len(node.args):
        node.update_arg(place, value)
    elif arguments(node)[baked.argument] != value:
        node.update_kwarg(baked.argument, value)


def _computed(node: Node, size: Any, dim: Dim, kept: Kept) -> Any:
    """A size that the graph computes, such as batch times heads, with the new number of heads."""
    if not isinstance(size, Node):
        return size
    ratio = sympy.cancel(sympy.sympify(size_after(dim, kept)) / expression(size.meta["val"]))
    if ratio == 1:  # it does not depend on what goes, or follows from a value that is smaller now
        return size
    wanted, had = (int(n) for n in ratio.as_numer_denom())
    for operation, number in ((operator.floordiv, had), (operator.mul, wanted)):
        with node.graph.inserting_before(node):
            made = node.graph.call_function(operation, (size, number))
        made.meta["val"] = operation(size.meta["val"], number)
        size = made
    return size


def _retype(node: Node, mode: FakeTensorMode, dirty: set[Node]) -> None:
    """Compute the type of a call anew; what depends on it follows if it has changed."""
    if node.op != "call_function":
        return
    old = node.meta["val"]
    node.meta["val"] = fake_result(node.target, node.args, node.kwargs, mode)
    if _shapes(old) != _shapes(node.meta["val"]):
        dirty.add(node)


def _shapes(value: Any) -> list[Any]:
    values = value if isinstance(value, (tuple, list)) else [value]
    return [
        (tuple(map(str, v.shape)), tuple(map(str, v.stride())))
        if isinstance(v, torch.Tensor)
        else str(v)
        for v in values
    ]
