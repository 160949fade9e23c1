"""Constant folding: values that depend on no input are computed now, if the result is small."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.constants import constant_nodes, evaluate, weight_names
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.passes import Pass
from strop.compiler.rewriting.rules import Log


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Replace constant subgraphs by constants.

    Expressions over trainable weights are left alone, so that the program can still be trained;
    the lowering evaluates those when it writes the file.

    Attributes:
        limit_bytes: a larger result is left as an expression.
    """

    name = "constants"

    limit_bytes: int = 1 << 20

    def apply(self, program: Program, log: Log) -> None:
        fixed = constant_nodes(program)
        trained = _from_parameters(program)
        for node in list(program.calls()):
            if node in fixed and node not in trained and self._is_frontier(node, fixed):
                self._fold(program, node, log)

    def _is_frontier(self, node: Node, fixed: set[Node]) -> bool:
        """Whether the result is read by something that is not constant itself."""
        return isinstance(node.meta["val"], torch.Tensor) and any(
            u not in fixed for u in node.users
        )

    def _fold(self, program: Program, node: Node, log: Log) -> None:
        value = node.meta["val"]
        size = value.numel() * value.element_size()
        if size > self.limit_bytes:
            log.notes.append(f"%{node.name} is constant but has {size} bytes; left as it is")
            return
        sources = tuple(dict.fromkeys(weight_names(node)))
        build = Builder(program, node, self.name)
        folded = build.weight(f"strop.{node.name}", evaluate(node, program), sources)
        node.replace_all_uses_with(folded)
        program.erase_dead([node])
        log.rewrote("constants", node)


def _from_parameters(program: Program) -> set[Node]:
    found: set[Node] = set()
    for node in program.graph.nodes:
        weight = program.weight_of(node)
        inherits = any(n in found for n in node.all_input_nodes)
        if inherits or isinstance(weight, torch.nn.Parameter):
            found.add(node)
    return found
