"""A residual sum and the norm after it, as one operator."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.nodes import arguments, same_shape, shape_of
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.passes import RulePass
from strop.compiler.rewriting.pattern import NEAR, Match, Miss, is_float
from strop.compiler.rewriting.rules import Rule

aten = torch.ops.aten
strop = torch.ops.strop


class ResidualNorm(Rule):
    """``norm(a + b)`` where a and b have one shape; other users of the sum share it."""

    name = "residual-norm"
    roots = (aten.layer_norm.default, aten.rms_norm.default)

    def match(self, root: Node, program: Program) -> Match | Miss:
        total = root.args[0]
        assert isinstance(total, Node)
        if total.target is not aten.add.Tensor or total.kwargs:
            return Miss("no sum before the norm", total)
        a, b = total.args[:2]
        if not (is_float(a) and is_float(b)) or not same_shape(shape_of(a), shape_of(b)):
            return Miss("the summands have different shapes", total, NEAR)
        if len(arguments(root)["normalized_shape"]) > 1:
            return Miss("the norm is over several axes", root, NEAR)
        earlier = [u for u in total.users if u < root]
        if earlier:
            return Miss("the sum is used before the norm", earlier[0], NEAR)
        return Match(root, {"a": a, "b": b, "total": total}, [root])

    def rewrite(self, match: Match, build: Builder) -> Node:
        pair = self._pair(match, build)
        normed = build.call(operator.getitem, pair, 0)
        total = build.call(operator.getitem, pair, 1)
        match["total"].replace_all_uses_with(total, lambda user: user is not match.root)
        return normed

    def _pair(self, match: Match, build: Builder) -> Node:
        values = arguments(match.root)
        both, weight = (match["a"], match["b"]), values["weight"]
        if match.root.target is aten.layer_norm.default:
            rest = (weight, values["bias"], values["eps"])
            return build.call(strop.skip_layer_norm.default, *both, *rest)
        eps = values["eps"]
        eps = torch.finfo(match.root.meta["val"].dtype).eps if eps is None else eps
        return build.call(strop.skip_rms_norm.default, *both, weight, eps)


@dataclass(frozen=True)
class FuseResiduals(RulePass):
    """Join each residual sum with the norm that follows it."""

    name = "residuals"

    def rules(self) -> Sequence[Rule]:
        return (ResidualNorm(),)
