"""Linear layers on int8 weights and rows: the rows are rounded by a kernel of their own."""

from __future__ import annotations

import torch
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.nodes import arguments, dtype_of
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.pattern import NEAR, Match, Miss
from strop.compiler.rewriting.rules import Rule
from strop.passes.kernels.layers import float32, quantized, shared

strop = torch.ops.strop


class Int8Linear(Rule):
    """Layers that read one value share its rounding."""

    name = "kernel-linear-int8"
    roots = (strop.linear_w8a8_rows.default,)

    def match(self, root: Node, program: Program) -> Match | Miss:
        values = arguments(root)
        if not self.target.fuses(dtype := dtype_of(values["x"])):
            return Miss(f"{self.target.name} has no kernel for {dtype}", root, NEAR)
        return Match(root, values, [root])

    def rewrite(self, match: Match, build: Builder) -> Node:
        q, rows = quantized(match["x"], strop.quantize_rows.default, build)
        weight, scale = match["weight"], match["scale"]
        whole = shared(build, strop.int8_weight.default, weight, scale)
        rest = (match["bias"], None, "none", dtype_of(match.root))
        given = (q, rows, whole, float32(scale, build), *rest)
        return build.call(strop.linear_int8.default, *given)
