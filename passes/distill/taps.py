"""Taps: values inside a program as further outputs, marked as such, while a pass looks at them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch.fx.node import Node

from strop.compiler.ir.nodes import value_of
from strop.compiler.ir.printer import tensor_spec
from strop.compiler.ir.program import Program


def tapped(program: Program, names: Sequence[str]) -> Program:
    """A copy whose outputs are followed by the named values, in this order; weights are shared.

    Args:
        program: without taps.
        names: of nodes that have one tensor as value.
    """
    made = program.clone()
    nodes = {node.name: node for node in made.graph.nodes}
    taps = [nodes[name] for name in names]
    specs = [tensor_spec(f"tap.{n.name}", n, made.symbols) for n in taps]
    marked = [replace(spec, tap=True) for spec in specs]
    _return(made, [*made.outputs, *taps])
    made.contract = replace(made.contract, outputs=(*made.contract.outputs, *marked))
    return made


def strip(program: Program) -> Program:
    """A copy without taps, nor what only they needed; its outputs are the same to the bit."""
    made = program.clone()
    specs = made.contract.outputs
    taps = [node for spec, node in zip(specs, made.outputs) if spec.tap]
    _return(made, [node for spec, node in zip(specs, made.outputs) if not spec.tap])
    made.contract = replace(made.contract, outputs=tuple(s for s in specs if not s.tap))
    made.erase_dead(taps)
    made.drop_unused_weights()
    return made


def tappable(program: Program) -> list[Node]:
    """The values that can be tapped: one tensor of floats, computed from inputs, in order."""
    computed: set[Node] = set()
    for node in program.graph.nodes:
        if node.op == "placeholder" or not computed.isdisjoint(node.all_input_nodes):
            computed.add(node)
    return [n for n in program.calls() if n in computed and _is_float(value_of(n))]


def _is_float(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _return(program: Program, nodes: list[Node]) -> None:
    program.graph.output_node().args = (tuple(nodes),)
