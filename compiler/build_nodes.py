"""Create nodes with their types: whoever creates a node gives it its ``meta``."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.node import Node

from strop.compiler.program import Origin, Program


class Builder:
    """Inserts typed nodes before one place in a program.

    Every new node inherits the source line and module of ``origin``, the node it replaces.
    """

    def __init__(self, program: Program, before: Node, made_by: str) -> None:
        self.program = program
        self.graph = program.graph
        self.before = before
        self.made_by = made_by
        self.created: list[Node] = []

    def call(self, target: Any, *args: Any, **kwargs: Any) -> Node:
        """Insert ``target(*args, **kwargs)``; its type comes from running it on fake tensors."""
        with self.graph.inserting_before(self.before):
            node = self.graph.call_function(target, args, kwargs)
        node.meta = _inherited(self.before) | {"made_by": self.made_by}
        node.meta["val"] = fake_result(target, args, kwargs)
        self.created.append(node)
        return node

    def weight(self, name: str, tensor: torch.Tensor, sources: tuple[str, ...]) -> Node:
        """Add a constant to the program and a node that names it."""
        name = self.program.add_weight(name, tensor, Origin(sources, self.made_by))
        first = next(iter(self.graph.nodes))
        with self.graph.inserting_before(first):
            node = self.graph.create_node("get_attr", name)
        node.meta["val"] = fake_mode_of(self.program).from_tensor(tensor, static_shapes=True)
        return node


def _inherited(node: Node) -> dict[str, Any]:
    return {k: node.meta[k] for k in ("stack_trace", "nn_module_stack") if k in node.meta}


def fake_mode_of(program: Program) -> FakeTensorMode:
    """The mode in which this program's values were made."""
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, torch._subclasses.FakeTensor):
            return value.fake_mode
    return FakeTensorMode()


def fake_result(target: Any, args: Any, kwargs: Any) -> Any:
    """Run an operator on the ``meta["val"]`` of its arguments."""
    values: Any = fx.map_arg((args, kwargs), lambda n: n.meta["val"])
    fakes = [v for v in torch.utils._pytree.tree_leaves(values) if isinstance(v, torch.Tensor)]
    mode = fakes[0].fake_mode if fakes else FakeTensorMode()  # type: ignore[attr-defined]
    with mode, torch.no_grad():
        return target(*values[0], **values[1])
