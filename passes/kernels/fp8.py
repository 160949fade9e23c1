"""Linear layers on e4m3 weights and rows: the rows are rounded by a kernel of their own."""

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


class Fp8Linear(Rule):
    """Layers that read one value share its rounding."""

    name = "kernel-linear-fp8"
    roots = (strop.linear_fp8.default,)

    def match(self, root: Node, program: Program) -> Match | Miss:
        values = arguments(root)
        if not self.target.fp8:
            return Miss(f"{self.target.name} does not multiply 8-bit floats", root, NEAR)
        if not self.target.fuses(dtype := dtype_of(values["x"])):
            return Miss(f"{self.target.name} has no kernel for {dtype}", root, NEAR)
        return Match(root, values, [root])

    def rewrite(self, match: Match, build: Builder) -> Node:
        q, rows = quantized(match["x"], strop.quantize_rows_fp8.default, build)
        weight, scale = match["weight"], match["scale"]
        held = shared(build, strop.fp8_weight.default, weight, scale)
        rest = (match["bias"], None, "none", dtype_of(match.root))
        given = (q, rows, held, float32(scale, build), *rest)
        return build.call(strop.scaled_linear_fp8.default, *given)
