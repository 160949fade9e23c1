"""Every value that a program computes, by name."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.fx.node import Node

from strop.compiler.inputs import Inputs
from strop.compiler.numerics import Array
from strop.compiler.program import Program


class _Watcher(fx.Interpreter):
    """Runs a graph and keeps a copy of every tensor it computes."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.seen: dict[str, Array] = {}

    def run_node(self, n: Node) -> Any:
        """Run one node as usual, and look at what it gives."""
        result = super().run_node(n)
        if n.op == "call_function" and isinstance(result, torch.Tensor):
            self.seen[n.name] = result.detach().numpy().copy()
        return result


def values(program: Program, inputs: Inputs) -> dict[str, Array]:
    """Run a program in eager torch; the tensors computed, by node name, in program order."""
    watcher = _Watcher(program.module())
    with torch.no_grad():
        watcher.run(*(inputs[spec.name] for spec in program.contract.inputs))
    return watcher.seen
