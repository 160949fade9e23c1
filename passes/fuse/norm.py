"""The hand-written RMSNorm becomes ``aten.rms_norm``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.nodes import dtype_of, same_shape, shape_of
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.passes import RulePass
from strop.compiler.rewriting.pattern import Either, Match, Op, Var, is_float, is_number
from strop.compiler.rewriting.rules import Rule

aten = torch.ops.aten

_X = Var("x", is_float, "a float tensor")
_EPS = Var("eps", is_number, "a number")
_SQUARE = Either(
    (Op(aten.pow.Tensor_Scalar, _X, 2), Op(aten.mul.Tensor, _X, _X), Op(aten.square.default, _X))
)
_MEAN = Op(aten.mean.dim, _SQUARE, Var("axes"), True, any_rest=True)
_SHIFTED = Op((aten.add.Tensor, aten.add.Scalar), _MEAN, _EPS)
_NORMED = Either(
    (
        Op(aten.mul.Tensor, _X, Op(aten.rsqrt.default, _SHIFTED), swap=True),
        Op(aten.mul.Tensor, _X, Op(aten.pow.Tensor_Scalar, _SHIFTED, -0.5), swap=True),
        Op(aten.div.Tensor, _X, Op(aten.sqrt.default, _SHIFTED)),
    )
)


def _last_axis_only(match: Match) -> str | None:
    if match["axes"] not in ([-1], [len(shape_of(match["x"])) - 1]):
        return f"the mean is over axes {match['axes']}, not the last one"
    if isinstance(shape_of(match["x"])[-1], torch.SymInt):
        return "the number of channels is dynamic"
    if dtype_of(match.root) != dtype_of(match["x"]):
        return f"the result is {dtype_of(match.root)}"
    return None


def _rms_norm(match: Match, weight: Node | None, build: Builder) -> Node:
    size, eps = int(shape_of(match["x"])[-1]), float(match["eps"])
    return build.call(aten.rms_norm.default, match["x"], [size], weight, eps)


class ScaledRMSNorm(Rule):
    """``weight * (x * rsqrt(mean(x^2) + eps))`` over the last axis (arXiv:1910.07467)."""

    name = "rms-norm"
    pattern = Op(aten.mul.Tensor, Var("weight", is_float, "a float tensor"), _NORMED, swap=True)

    def check(self, match: Match, program: Program) -> str | None:
        if not same_shape(shape_of(match["weight"]), shape_of(match["x"])[-1:]):
            return "the factor is not one number per channel"
        return _last_axis_only(match)

    def rewrite(self, match: Match, build: Builder) -> Node:
        return _rms_norm(match, match["weight"], build)


class PlainRMSNorm(Rule):
    """RMSNorm without a weight."""

    name = "rms-norm-plain"
    pattern = _NORMED

    def check(self, match: Match, program: Program) -> str | None:
        return _last_axis_only(match)

    def rewrite(self, match: Match, build: Builder) -> Node:
        return _rms_norm(match, None, build)


@dataclass(frozen=True)
class FuseNorms(RulePass):
    """Recognise RMSNorm written out."""

    name = "norms"

    def rules(self) -> Sequence[Rule]:
        return (ScaledRMSNorm(), PlainRMSNorm())
