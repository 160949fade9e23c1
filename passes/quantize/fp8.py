"""W8A8 in 8-bit floats: for GPUs that multiply them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Context
from strop.compiler.rewriting.passes import RulePass
from strop.compiler.rewriting.pattern import NEAR, Match, Miss
from strop.compiler.rewriting.rules import Log, Rule
from strop.passes.quantize.layers import linear_layer
from strop.passes.quantize.selection import Selecting, Selection

strop = torch.ops.strop


@dataclass(frozen=True)
class Fp8Linear(Rule):
    """A linear layer on constant weights."""

    name = "linear-fp8"
    roots = (torch.ops.aten.linear.default,)
    selection: Selection = Selection()

    def match(self, root: Node, program: Program) -> Match | Miss:
        if not self.target.fp8:
            return Miss(f"{self.target.name} does not multiply 8-bit floats", root, NEAR)
        found = linear_layer(root, program, self.selection)
        return found if isinstance(found, Miss) else Match(root, found, [root])

    def rewrite(self, match: Match, build: Builder) -> Node:
        scale = build.call(strop.fp8_scale.default, match["weight"])
        return build.call(
            strop.linear_fp8.default, match["input"], match["weight"], scale, match["bias"]
        )


@dataclass(frozen=True)
class QuantizeFp8(Selecting, RulePass):
    """Quantize linear layers to e4m3: weights per channel, activations per token at run time.

    A token's result does not depend on its neighbours in the batch.

    Attributes:
        only: weights to quantize, by name or shell pattern; by default all.
        keep: weights to leave in float, by name or shell pattern.
    """

    name = "quantize-fp8"
    quantizes = True
    # The product adds the bias itself.
    before = ("bias-gelu",)

    def apply_in(self, program: Program, log: Log, context: Context) -> None:
        self.selection.require_matches(program)
        super().apply_in(program, log, context)

    def rules(self) -> Sequence[Rule]:
        return (Fp8Linear(self.selection),)
