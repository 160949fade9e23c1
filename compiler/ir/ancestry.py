"""Look at what a float value is computed from."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.fx.node import Node

from strop.compiler.ir.constants import evaluate, is_weight_expression
from strop.compiler.ir.nodes import has_floats
from strop.compiler.ir.program import Program

# Masks and biases are computed in fewer steps than these.
_MOST = 64
_END = 2**63 - 1  # The end of a slice, in a graph.
# What makes infinities of ordinary numbers.
_MAKE_INFINITE = ("log", "log2", "log10", "log1p", "logit", "reciprocal", "exp", "pow", "tan")


def any_float_behind(value: Node, is_one: Callable[[Node], bool]) -> bool:
    """Whether a float value, or a float that it is computed from, may be of a kind.

    Looks at a bounded number of values: where there are more, the answer is yes.
    """
    pending, seen = [value], {value}
    while pending and len(seen) < _MOST:
        node = pending.pop()
        if is_one(node):
            return True
        new = [n for n in node.all_input_nodes if n not in seen and has_floats(n)]
        pending += new
        seen.update(new)
    return bool(pending)


def may_hold(value: Node, program: Program, bad: Callable[[torch.Tensor], torch.Tensor]) -> bool:
    """Whether a value may hold numbers of a kind: it is given, or computed from such numbers."""

    def may(node: Node) -> bool:
        if is_weight_expression(node):
            return bool(bad(evaluate(node, program).detach().float()).any())
        given = node.op == "placeholder" or _makes_infinite(node)
        return given or bool(bad(_literals(node)).any())

    return any_float_behind(value, may)


def _makes_infinite(node: Node) -> bool:
    """Whether an operator may make infinities of ordinary numbers."""
    name = str(node.target).removeprefix("aten.").split(".")[0]
    by_tensor = name == "div" and isinstance(node.args[1], Node)
    return name in _MAKE_INFINITE or by_tensor


def _literals(node: Node) -> torch.Tensor:
    given = (*node.args, *node.kwargs.values())
    found = [float(a) for a in given if isinstance(a, (int, float)) and a != _END]
    return torch.tensor(found, dtype=torch.float64)
