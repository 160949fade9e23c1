"""Casts that are put between a value and its users."""

from __future__ import annotations

import torch
from torch.fx.node import Node

from strop.compiler.ir.builder import fake_result

aten = torch.ops.aten


def cast(value: Node, dtype: torch.dtype, after: Node, made_by: str = "dtypes") -> Node:
    """A cast of a value, behind a node, with the value's place in the source."""
    with after.graph.inserting_after(after):
        node = after.graph.call_function(aten.to.dtype, (value, dtype))
    node.meta = {k: v for k, v in value.meta.items() if k in ("stack_trace", "nn_module_stack")}
    node.meta |= {"val": fake_result(aten.to.dtype, (value, dtype), {}), "made_by": made_by}
    return node


def use_instead(old: Node, new: Node) -> None:
    """Let every user of a value read another node instead, which is computed from it."""
    for user in [u for u in old.users if u is not new]:
        user.replace_input_with(old, new)
