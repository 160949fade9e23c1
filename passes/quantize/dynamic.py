"""Dynamic W8A8: int8 weights per channel, activations quantized when the model runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.constants import is_weight_expression, weight_names
from strop.compiler.ir.nodes import dtype_of, shape_of
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Context
from strop.compiler.rewriting.passes import RulePass
from strop.compiler.rewriting.pattern import NEAR, Match, Miss
from strop.compiler.rewriting.rules import Log, Rule
from strop.compiler.targets.target import Target
from strop.passes.quantize.int8_targets import why_no_int8
from strop.passes.quantize.layers import linear_layer
from strop.passes.quantize.selection import Selecting, Selection

aten = torch.ops.aten
strop = torch.ops.strop

Scales = Literal["tensor", "row"]
"""What has a scale of its own when the model runs: the whole of a tensor, or each row of it."""


def _why_not_int8(target: Target, weight: Node) -> str | None:
    """Why operators on int8 weights cannot take the place of those on a weight."""
    dtype = dtype_of(weight)
    return None if target.fuses(dtype) else f"{target.name} has no int8 operators for {dtype}"


@dataclass(frozen=True)
class DynamicLinear(Rule):
    """A linear layer on constant weights."""

    name = "linear-w8a8"
    roots = (aten.linear.default,)
    selection: Selection = Selection()
    scales: Scales = "tensor"

    def match(self, root: Node, program: Program) -> Match | Miss:
        if not self.target.dynamic_int8:
            return Miss(f"{self.target.name} is not faster with activations in int8", root, NEAR)
        found = linear_layer(root, program, self.selection)
        if isinstance(found, Miss):
            return found
        if reason := _why_not_int8(self.target, found["weight"]):
            return Miss(reason, root, NEAR)
        return Match(root, found, [root])

    def rewrite(self, match: Match, build: Builder) -> Node:
        scale = build.call(strop.int8_scale.default, match["weight"])
        rows = self.scales == "row"
        product = strop.linear_w8a8_rows.default if rows else strop.linear_w8a8.default
        return build.call(product, match["input"], match["weight"], scale, match["bias"])


@dataclass(frozen=True)
class Int8Embedding(Rule):
    """An embedding table of at least ``min_rows`` rows."""

    name = "embedding-int8"
    roots = (aten.embedding.default,)
    selection: Selection = Selection()
    min_rows: int = 0

    def match(self, root: Node, program: Program) -> Match | Miss:
        weight, indices = root.args[:2]
        assert isinstance(weight, Node)
        if weight.op != "get_attr":
            return Miss("the table is computed", root, NEAR)
        if reason := _why_not_int8(self.target, weight):
            return Miss(reason, root, NEAR)
        if int(shape_of(weight)[0]) < self.min_rows:
            return Miss(f"the table has fewer than {self.min_rows} rows", root, NEAR)
        if reason := self.selection.why_not([str(weight.target)]):
            return Miss(reason, root, NEAR)
        return Match(root, {"weight": weight, "indices": indices}, [root])

    def rewrite(self, match: Match, build: Builder) -> Node:
        scale = build.call(strop.int8_scale.default, match["weight"])
        return build.call(strop.embedding_int8.default, match["weight"], scale, match["indices"])


@dataclass(frozen=True)
class Int8Table(Rule):
    """A constant table that is cut to length, not looked up: stored in int8, used in float."""

    name = "table-int8"
    roots = (aten.slice.Tensor,)
    selection: Selection = Selection()

    def match(self, root: Node, program: Program) -> Match | Miss:
        table, axis = root.args[:2]
        assert isinstance(table, Node)
        if axis != 0 or not is_weight_expression(table) or len(shape_of(table)) != 2:
            return Miss("it does not slice a table along its rows", root)
        if table.target is strop.stored_int8.default:
            return Miss("the table is in int8 already", root, NEAR)
        if reason := _why_not_int8(self.target, table):
            return Miss(reason, root, NEAR)
        if not any(isinstance(s, torch.SymInt) for s in shape_of(root)):
            return Miss("it is cut to a fixed length: the rest is not stored at all", root, NEAR)
        names = weight_names(table)
        if not all(isinstance(program.weights[n], torch.nn.Parameter) for n in names):
            return Miss("the table is a buffer: one scale may not fit its values", root, NEAR)
        if reason := self.selection.why_not(names):
            return Miss(reason, root, NEAR)
        return Match(root, {"table": table}, [root])

    def rewrite(self, match: Match, build: Builder) -> Node:
        scale = build.call(strop.int8_scale.default, match["table"])
        stored = build.call(strop.stored_int8.default, match["table"], scale)
        return build.call(aten.slice.Tensor, stored, *match.root.args[1:])


@dataclass(frozen=True)
class QuantizeDynamic(Selecting, RulePass):
    """Quantize linear layers to int8 weights and run-time u8 activations (dynamic W8A8).

    Attributes:
        only: weights to quantize, by name or shell pattern ("lm_head", "*.layer.0.*"); by default
            all.
        keep: weights to leave in float, by name or shell pattern.
        scales: of activations. "tensor" takes one for a whole tensor, so that a row changes with
            its neighbours in the batch; "row" takes one for each row, which changes with none and
            is closer to float, but is slower where there are many rows.
        embeddings: also keep embedding tables in int8, one scale per row.
    """

    name = "quantize"
    quantizes = True
    # The int8 product adds the bias itself.
    before = ("bias-gelu",)

    scales: Scales = "tensor"
    embeddings: bool = True

    def refused_by(self, target: Target) -> str | None:
        return why_no_int8(target)

    def apply_in(self, program: Program, log: Log, context: Context) -> None:
        self.selection.require_matches(program)
        super().apply_in(program, log, context)

    def rules(self) -> Sequence[Rule]:
        linear = DynamicLinear(self.selection, self.scales)
        if not self.embeddings:
            return (linear,)
        return (linear, Int8Embedding(self.selection), Int8Table(self.selection))
