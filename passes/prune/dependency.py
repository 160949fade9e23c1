"""Which slices of which weights must go together: one walk over the graph.

Every operator has a rule that gives the axes of its results and ties them to those of what it
reads (``rules/``). Sizes among the arguments are noted with the axes from which they follow, so
that a smaller program gets them by computation, never by looking for equal numbers.
"""

from __future__ import annotations

import operator

from torch.fx.node import Node

from strop.compiler.ir.nodes import arg, input_node
from strop.compiler.ir.program import Program
from strop.passes.prune.axes import Axes, Call, Dependencies, fresh
from strop.passes.prune.dims import freeze
from strop.passes.prune.rules import rule_of


def dependencies(program: Program) -> Dependencies:
    """The axes of a program's values and weights; linear in its nodes."""
    found = Dependencies(program)
    for node in program.graph.nodes:
        found.values[node] = _results(node, found)
    _freeze_contract(found)
    return found


def _results(node: Node, found: Dependencies) -> list[Axes]:
    if node.op == "get_attr":
        name = str(node.target)
        if name not in found.weights:
            found.weights[name] = fresh(list(found.program.weights[name].shape))
        return [found.weights[name]]
    call = Call.of(node, found) if node.op == "call_function" else Call(node, {}, found)
    if node.op != "call_function":
        return [fresh(shape) for shape in call.shapes()]
    if node.target is operator.getitem:
        results = found.values[input_node(node)]
        return [results[arg(node, 1)]] if results else []
    if not call.shapes():  # a size
        return []
    return rule_of(node.target)(call)


def _freeze_contract(found: Dependencies) -> None:
    """Callers rely on the shapes of inputs and outputs."""
    program = found.program
    placeholders = program.graph.find_nodes(op="placeholder")
    for spec, node in zip(program.contract.inputs, placeholders):
        for axes in found.values[node]:
            freeze(f"it is an axis of the input '{spec.name}'", *axes)
    for output, node in zip(program.contract.outputs, program.outputs):
        for axes in found.values[node]:
            freeze(f"it is an axis of the output '{output.name}'", *axes)
