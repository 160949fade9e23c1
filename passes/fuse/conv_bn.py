"""Batch norm folded into the convolution before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.fx.node import Node

from strop.compiler.build_nodes import Builder
from strop.compiler.passes import RulePass
from strop.compiler.pattern import Match, Op, Var
from strop.compiler.program import Program, arguments, shape_of
from strop.compiler.rewrite import Rule

aten = torch.ops.aten

CONVOLUTIONS = (
    aten.conv1d.default,
    aten.conv1d.padding,
    aten.conv2d.default,
    aten.conv2d.padding,
    aten.conv3d.default,
)


class ConvBatchNorm(Rule):
    """``batch_norm(conv(x, w, b))`` with running statistics is ``conv(x, w', b')``.

    With s = gamma / sqrt(var + eps): w' = w s, b' = (b - mean) s + beta.
    """

    name = "conv-bn"
    pattern = Op(
        aten.batch_norm.default,
        Op(CONVOLUTIONS, Var("x"), any_rest=True, name="conv"),
        Var("gamma"),
        Var("beta"),
        Var("mean"),
        Var("var"),
        any_rest=True,
    )

    def check(self, match: Match, program: Program) -> str | None:
        if arguments(match.root)["training"]:
            return "batch norm is in train mode"
        if len(shape_of(match["x"])) != len(shape_of(arguments(match["conv"])["weight"])):
            return "the convolution has no batch axis, so batch norm counts another one as channels"
        return None

    def rewrite(self, match: Match, build: Builder) -> Node:
        conv = arguments(match["conv"])
        eps = arguments(match.root)["eps"]
        scale = build.call(aten.rsqrt.default, build.call(aten.add.Tensor, match["var"], eps))
        if match["gamma"] is not None:
            scale = build.call(aten.mul.Tensor, scale, match["gamma"])
        shift = match["mean"]
        if conv["bias"] is not None:
            shift = build.call(aten.sub.Tensor, shift, conv["bias"])
        bias = build.call(aten.neg.default, build.call(aten.mul.Tensor, shift, scale))
        if match["beta"] is not None:
            bias = build.call(aten.add.Tensor, bias, match["beta"])
        ones = [1] * (len(shape_of(conv["weight"])) - 1)
        wide = build.call(aten.reshape.default, scale, [-1, *ones])
        weight = build.call(aten.mul.Tensor, conv["weight"], wide)
        rest = [v for k, v in conv.items() if k not in ("input", "weight", "bias")]
        return build.call(match["conv"].target, conv["input"], weight, bias, *rest)


@dataclass(frozen=True)
class FoldBatchNorm(RulePass):
    """Fold batch norm into the convolution before it."""

    name = "conv-bn"

    def rules(self) -> Sequence[Rule]:
        return (ConvBatchNorm(),)
