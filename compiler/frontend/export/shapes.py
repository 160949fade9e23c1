"""Compares the types of a captured program with the shapes of its values at some sizes."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx.node import Node
from torch.utils import _pytree as pytree

from strop.compiler.ir.interpreter import interpret
from strop.compiler.ir.nodes import static_int
from strop.compiler.ir.program import Program
from strop.compiler.ir.running import Inputs


def misshapen(program: Program, inputs: Inputs) -> str | None:
    """The first value that has other axes than its type says, or another size where that is fixed.

    A squeeze of an axis that has one element at some sizes only runs right in torch at all of
    them, but a file is made by the types. A size that is computed from dims may be off by one
    where torch's own formula has a branch, as for pooling with ``ceil_mode``: the file pools by
    the runtime's formula, and what it gives is compared with the original.
    """
    found: list[Node] = []

    def look(node: Node, value: Any) -> None:
        typed = pytree.tree_leaves(node.meta.get("val"))
        pairs = zip(typed, pytree.tree_leaves(value))
        if not all(_has_shape(got, said) for said, got in pairs):
            found.append(node)

    with torch.no_grad():
        interpret(program.graph, program.weights, inputs.values(), look)
    return f"%{found[0].name} has another shape there" if found else None


def _has_shape(got: Any, said: Any) -> bool:
    """Whether a value has as many axes as its type, and the sizes that are fixed there."""
    if not isinstance(got, torch.Tensor):
        return True
    fixed = [static_int(size) for size in said.shape]
    return len(fixed) == got.dim() and all(a in (None, b) for a, b in zip(fixed, got.shape))
