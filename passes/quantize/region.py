"""Which operators compute in int8, and which values between them are rounded for that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch.fx.node import Node

from strop.compiler.ir.program import Program
from strop.passes.quantize import int8_operators as int8
from strop.passes.quantize.int8_operators import activations


@dataclass(frozen=True)
class Region:
    """The part of a program that computes in int8, from layer to layer.

    Attributes:
        operators: those in it, layers among them.
        values: those that are rounded, in program order.
        leaders: for each of these, the first of the values with which it shares a grid.
        measured: those of them whose ranges decide a grid; the others take some of their values.
    """

    operators: frozenset[Node]
    values: tuple[Node, ...]
    leaders: dict[Node, Node]
    measured: tuple[Node, ...]

    @staticmethod
    def around(program: Program, layers: Sequence[Node]) -> Region:
        """The region around some layers.

        Another operator is in it where its operands are rounded anyway, and a layer reads what
        comes of it, through more operators of the region or at once. So sums, pools and joins
        between convolutions compute in int8, and those between float operators stay in float.
        """
        inside = _operators(program, layers)
        values = _rounded(program, inside)
        leaders = {value: value for value in values}
        followers = [v for v in values if _joins_grids(v, inside, leaders)]
        measured = [v for v in values if v not in followers]
        found = {value: _leader(value, leaders) for value in values}
        return Region(frozenset(inside), tuple(values), found, tuple(measured))

    def readers(self, value: Node) -> list[Node]:
        """The users that read the rounded form of a value.

        All of them, if the operator that makes it computes in int8: the float form is gone then.
        """
        users = list(value.users)
        return users if value in self.operators else [u for u in users if u in self.operators]


def _operators(program: Program, layers: Sequence[Node]) -> set[Node]:
    """The largest set in which every operator but the layers has a reason to be there."""
    fixed = set(layers)
    inside = fixed | {node for node in program.calls() if int8.computes_in_int8(node)}
    pending = sorted(inside - fixed)
    while pending:
        node = pending.pop()
        if node not in inside or node in fixed or _belongs(node, inside, fixed):
            continue
        inside.remove(node)
        pending += [n for n in (*node.users, *node.all_input_nodes) if n in inside]
    return inside


def _belongs(node: Node, inside: set[Node], layers: set[Node]) -> bool:
    is_read = any(user in inside for user in node.users)
    if node.target not in int8.CLAMPS:
        return is_read and all(_is_rounded(v, inside, layers) for v in activations(node))
    made_by = node.all_input_nodes[0]
    if made_by not in inside or len(made_by.users) > 1:
        return False
    if made_by.target in int8.CONVOLUTION_LAYERS:
        return True
    return is_read and made_by.target not in (*int8.SAME_GRID, *int8.CLAMPS)


def _is_rounded(value: Node, inside: set[Node], layers: set[Node]) -> bool:
    """Whether a value has an int8 form by the will of another operator than its reader."""
    return value in inside or any(
        user in layers and activations(user) == [value] for user in value.users
    )


def _rounded(program: Program, inside: set[Node]) -> list[Node]:
    """The values that operators of the region read, and what convolutions make."""
    found: set[Node] = set()
    for node in inside:
        if node.target not in int8.CLAMPS:
            found.update(activations(node))
        if node.target in int8.CONVOLUTION_LAYERS:
            found.add(_after_clamp(node, inside))
    return [n for n in program.graph.nodes if n in found and not is_rounded_already(n)]


def _after_clamp(node: Node, inside: set[Node]) -> Node:
    """The clamp of the region that reads a value, or the value itself without one."""
    only = next(iter(node.users)) if len(node.users) == 1 else node
    return only if only in inside and only.target in int8.CLAMPS else node


def is_rounded_already(value: Node) -> bool:
    """Whether a value comes from an earlier pass that rounded it."""
    return value.target is int8.strop.fake_quantize.default


def _joins_grids(value: Node, inside: set[Node], leaders: dict[Node, Node]) -> bool:
    """Let a result share the grid of its operands, where it is made of their values."""
    if value not in inside or value.target not in (*int8.SAME_GRID, *int8.JOINS):
        return False
    operands = activations(value)
    if any(operand not in leaders for operand in operands):
        return False
    if len({_lowest(operand) for operand in operands}) > 1:
        return False  # a clamp can be left to a grid only where that begins at its lower end
    first = min(_leader(operand, leaders) for operand in operands)
    for member in (*operands, value):
        leaders[_leader(member, leaders)] = first
    return True


def _lowest(value: Node) -> float | None:
    """Where the clamp ends that made a value; None where none did."""
    while value.target in int8.SAME_GRID:
        value = value.all_input_nodes[0]
    return int8.limits(value)[0] if value.target in int8.CLAMPS else None


def _leader(value: Node, leaders: dict[Node, Node]) -> Node:
    while leaders[value] is not value:
        value = leaders[value]
    return value
