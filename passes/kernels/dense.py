"""Linear layers in float, each in a kernel of strop's instead of torch's."""

from __future__ import annotations

import torch
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.pattern import NEAR, Match, Miss
from strop.compiler.rewriting.rules import Rule
from strop.passes.kernels.layers import dense_layer, why_not_dense


class DenseLinear(Rule):
    """A linear layer in 16 bits."""

    name = "kernel-linear"
    roots = (torch.ops.aten.linear.default,)

    def match(self, root: Node, program: Program) -> Match | Miss:
        if reason := why_not_dense(root, self.target):
            return Miss(reason, root, NEAR)
        return Match(root, {}, [root])

    def rewrite(self, match: Match, build: Builder) -> Node:
        return dense_layer(match.root).call(build)
