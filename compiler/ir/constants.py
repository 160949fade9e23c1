"""Constant subgraphs: values that depend only on weights are computed when the file is written."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import fx
from torch.fx.node import Node
from torch.utils import _pytree as pytree

import strop.compiler.ir.dialect  # noqa: F401  (registers the operators)
from strop.compiler.ir.program import Program

# Folded, their results would be written in the float form that they are there to avoid.
_KEPT = (torch.ops.strop.stored_int8.default, torch.ops.strop.fake_quantize.default)


def constant_nodes(program: Program) -> set[Node]:
    """Weights, and operators whose inputs are all constant and whose sizes are all numbers.

    Not those that stand for a smaller form of a weight.
    """
    fixed: set[Node] = set(program.graph.find_nodes(op="get_attr"))
    for node in program.calls():
        if node.target in _KEPT:
            continue
        if all(n in fixed for n in node.all_input_nodes) and _is_static(node.meta["val"]):
            fixed.add(node)
    return fixed


def is_weight_expression(value: Node) -> bool:
    """Whether a value depends on weights alone: a weight, or operators on such values."""
    if value.op == "get_attr":
        return True
    inputs = value.all_input_nodes
    return bool(inputs) and all(is_weight_expression(n) for n in inputs)


def weight_names(value: Node) -> list[str]:
    """The weights behind a weight expression; one that is read twice comes twice."""
    if value.op == "get_attr":
        return [str(value.target)]
    return [name for n in value.all_input_nodes for name in weight_names(n)]


def weights_behind(values: Iterable[Node]) -> frozenset[str]:
    """The names of all weights that constant values are computed from."""
    pending, seen = list(values), set(values)
    while pending:
        new = [n for n in pending.pop().all_input_nodes if n not in seen]
        pending += new
        seen.update(new)
    return frozenset(str(node.target) for node in seen if node.op == "get_attr")


def _is_static(value: object) -> bool:
    leaves = pytree.tree_leaves(value)
    return all(
        isinstance(v, torch.Tensor) and not any(isinstance(s, torch.SymInt) for s in v.shape)
        for v in leaves
    )


def evaluate(node: Node, program: Program) -> torch.Tensor:
    """Run the constant subgraph that ends in ``node``; only its result outlives the call."""
    values: dict[Node, Any] = {}

    def value(of: Node) -> Any:
        if of not in values:
            if of.op == "get_attr":
                values[of] = program.weights[str(of.target)].detach()
            else:
                args, kwargs = fx.map_arg((of.args, of.kwargs), value)
                values[of] = of.target(*args, **kwargs)  # type: ignore[operator]
        return values[of]

    with torch.no_grad():
        result = value(node)
    assert isinstance(result, torch.Tensor)
    return result
