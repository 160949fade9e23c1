"""How many parameters a program has, and how many bytes they will take when it is written."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx.node import Node

from strop.compiler.ir.constants import constant_nodes
from strop.compiler.ir.dialect import stored_bits
from strop.compiler.ir.nodes import arguments
from strop.compiler.ir.program import Program


@dataclass(frozen=True)
class Footprint:
    """The size of a program.

    Attributes:
        nodes: operator calls.
        parameters: elements of its constants, as they will be stored.
        bytes: what those take.
    """

    nodes: int
    parameters: int
    bytes: int


def footprint(program: Program) -> Footprint:
    """Measure a program; linear in its nodes, and no weight is read.

    A constant is stored where something that is not constant uses it, in the bits in which that
    operator keeps it; twice if two operators keep it in two widths.
    """
    fixed = constant_nodes(program)
    stored = {
        (constant, bits)
        for node in (*program.calls(), program.graph.output_node())
        if node not in fixed
        for constant, bits in _kept_by(node)
        if constant in fixed
    }
    sizes = [(int(c.meta["val"].numel()), bits) for c, bits in stored]
    return Footprint(
        nodes=sum(1 for _ in program.calls()),
        parameters=sum(count for count, _ in sizes),
        bytes=sum(-(-count * bits // 8) for count, bits in sizes),
    )


def _kept_by(node: Node) -> list[tuple[Node, int]]:
    """The tensor inputs of a node, each with the bits in which the node keeps a constant there."""
    values = arguments(node)
    special = {
        value: bits
        for name, value in values.items()
        if isinstance(value, Node) and (bits := stored_bits(node.target, name, values)) is not None
    }
    return [
        (n, special.get(n, n.meta["val"].dtype.itemsize * 8))
        for n in node.all_input_nodes
        if isinstance(n.meta["val"], torch.Tensor)
    ]
