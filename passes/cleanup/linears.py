"""Products with a weight in one canonical form, ``aten.linear``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.constants import is_weight_expression
from strop.compiler.ir.nodes import input_node, same_shape, shape_of
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.passes import RulePass
from strop.compiler.rewriting.pattern import NEAR, Match, Miss, Op, Var
from strop.compiler.rewriting.rules import Rule
from strop.passes.cleanup.einsum import EinsumProduct

aten = torch.ops.aten

_WEIGHT = Var("weight", lambda v: isinstance(v, Node) and is_weight_expression(v), "a weight")


def _transposed(weight: Node, build: Builder) -> Node:
    """[in, out] as the [out, in] of a linear layer, without a copy."""
    if weight.target is aten.t.default:
        return input_node(weight)
    return build.call(aten.t.default, weight)


def _is_bias(value: Node, weight: Node) -> bool:
    """Whether a value is one number per column of an [in, out] weight."""
    return same_shape(shape_of(value), shape_of(weight)[1:])


class FlattenedAddmm(Rule):
    """``reshape(addmm(bias, reshape(x, [-1, in]), weight))``: GPT-2's Conv1D."""

    name = "linear-conv1d"
    pattern = Op(
        aten.reshape.default,
        Op(
            aten.addmm.default,
            Var("bias"),
            Op(aten.reshape.default, Var("x"), any_rest=True),
            _WEIGHT,
        ),
        any_rest=True,
    )

    def check(self, match: Match, program: Program) -> str | None:
        x, out = shape_of(match["x"]), shape_of(match.root)
        if not same_shape(x[:-1], out[:-1]) or x[-1] != shape_of(match["weight"])[0]:
            return "the views around it do more than flatten rows"
        return None if _is_bias(match["bias"], match["weight"]) else "the addend is not a bias"

    def rewrite(self, match: Match, build: Builder) -> Node:
        weight = _transposed(match["weight"], build)
        return build.call(aten.linear.default, match["x"], weight, match["bias"])


class WeightProduct(Rule):
    """``matmul(x, weight)`` and ``addmm(bias, x, weight)``."""

    name = "linear-product"
    roots = (aten.matmul.default, aten.mm.default, aten.addmm.default)

    def match(self, root: Node, program: Program) -> Match | Miss:
        values: list[Any] = list(root.args)
        bias = values.pop(0) if root.target is aten.addmm.default else None
        x, weight = values[:2]
        if root.kwargs or not is_weight_expression(weight) or is_weight_expression(x):
            return Miss("the second factor is not a weight", root)
        if len(shape_of(weight)) != 2 or len(shape_of(x)) < 2:
            return Miss("the factors are not matrices", root, NEAR)
        if bias is not None and not _is_bias(bias, weight):
            return Miss("the addend is not a bias", root, NEAR)
        return Match(root, {"x": x, "weight": weight, "bias": bias}, [root])

    def rewrite(self, match: Match, build: Builder) -> Node:
        weight = _transposed(match["weight"], build)
        return build.call(aten.linear.default, match["x"], weight, match["bias"])


@dataclass(frozen=True)
class PlainLinears(RulePass):
    """Turn products by ``einsum`` into plain ones, and those with a weight into ``aten.linear``."""

    name = "linears"

    def rules(self) -> Sequence[Rule]:
        return (EinsumProduct(), FlattenedAddmm(), WeightProduct())
