"""Compares the types of a captured program with the shapes of its values at some sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sympy
import torch
from torch.fx.node import Node
from torch.utils import _pytree as pytree

from strop.compiler.ir.interpreter import interpret
from strop.compiler.ir.nodes import expression
from strop.compiler.ir.program import Program
from strop.compiler.ir.running import Inputs


def misshapen(program: Program, inputs: Inputs, sizes: Mapping[str, int]) -> str | None:
    """The first value whose shape at these sizes is another than its type says.

    A squeeze of an axis that has one element at some sizes only runs right in torch at all of
    them, but a file is made by the types.
    """
    known = {s: sizes[dim] for s, dim in program.symbols.items() if dim in sizes}
    found: list[Node] = []

    def look(node: Node, value: Any) -> None:
        typed = pytree.tree_leaves(node.meta.get("val"))
        pairs = zip(typed, pytree.tree_leaves(value))
        if not all(_has_shape(got, said, known) for said, got in pairs):
            found.append(node)

    with torch.no_grad():
        interpret(program.graph, program.weights, inputs.values(), look)
    return f"%{found[0].name} has another shape there" if found else None


def _has_shape(got: Any, said: Any, known: Mapping[str, int]) -> bool:
    """Whether a value has its type's shape; sizes that only the data know may be any."""
    if not isinstance(got, torch.Tensor):
        return True
    at = [_size_at(size, known) for size in said.shape]
    return len(at) == got.dim() and all(a in (None, b) for a, b in zip(at, got.shape))


def _size_at(size: Any, known: Mapping[str, int]) -> int | None:
    expr = sympy.sympify(expression(size))
    if any(str(s) not in known for s in expr.free_symbols):
        return None
    return int(expr.xreplace({s: sympy.Integer(known[str(s)]) for s in expr.free_symbols}))
