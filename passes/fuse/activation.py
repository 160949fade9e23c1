"""Activations written out, bias before GELU, and gated activations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.families import ADD, DIV, MUL
from strop.compiler.ir.nodes import arguments, same_shape, shape_of
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.passes import RulePass
from strop.compiler.rewriting.pattern import Either, Lit, Match, Op, Var, is_float
from strop.compiler.rewriting.rules import Rule

aten = torch.ops.aten
strop = torch.ops.strop

_X = Var("x", is_float, "a float tensor")


def _half_times(factor: Op) -> Either:
    """0.5 * x * factor in the orders people write it."""
    half = Op(MUL, _X, Lit(0.5), swap=True)
    return Either(
        (
            Op(MUL, half, factor, swap=True),
            Op(MUL, Op(MUL, _X, factor, swap=True), Lit(0.5), swap=True),
            Op(MUL, _X, Op(MUL, factor, Lit(0.5), swap=True), swap=True),
        )
    )


_ERF = Op(
    aten.erf.default,
    Either((Op(DIV, _X, Lit(math.sqrt(2))), Op(MUL, _X, Lit(1 / math.sqrt(2)), swap=True))),
)
_CUBE = Either(
    (
        Op(aten.pow.Tensor_Scalar, _X, 3),
        Op(MUL, Op(MUL, _X, _X), _X, swap=True),
    )
)
_INNER = Op(ADD, _X, Op(MUL, _CUBE, Lit(0.044715), swap=True), swap=True)
_TANH = Op(aten.tanh.default, Op(MUL, _INNER, Lit(math.sqrt(2 / math.pi)), swap=True))


class ErfGelu(Rule):
    """``x * 0.5 * (1 + erf(x / sqrt 2))`` (arXiv:1606.08415)."""

    name = "gelu-erf"
    pattern = _half_times(Op(ADD, _ERF, Lit(1.0), swap=True))

    def rewrite(self, match: Match, build: Builder) -> Node:
        return build.call(aten.gelu.default, match["x"])


class TanhGelu(Rule):
    """``x * 0.5 * (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`` (arXiv:1606.08415)."""

    name = "gelu-tanh"
    pattern = _half_times(Op(ADD, _TANH, Lit(1.0), swap=True))

    def rewrite(self, match: Match, build: Builder) -> Node:
        return build.call(aten.gelu.default, match["x"], approximate="tanh")


class Silu(Rule):
    """``x * sigmoid(x)``."""

    name = "silu"
    pattern = Op(MUL, _X, Op(aten.sigmoid.default, _X), swap=True)

    def rewrite(self, match: Match, build: Builder) -> Node:
        return build.call(aten.silu.default, match["x"])


class Gated(Rule):
    """``activation(gate) * up``: SwiGLU and GeGLU (arXiv:2002.05202)."""

    name = "gated"
    pattern = Op(
        MUL,
        Either(
            (
                Op(aten.silu.default, Var("gate"), name="active"),
                Op(aten.gelu.default, Var("gate"), name="active", any_rest=True),
            )
        ),
        Var("up", is_float, "a float tensor"),
        swap=True,
    )

    def check(self, match: Match, program: Program) -> str | None:
        if not same_shape(shape_of(match["gate"]), shape_of(match["up"])):
            return "gate and up have different shapes"
        return None

    def rewrite(self, match: Match, build: Builder) -> Node:
        active = match["active"]
        kind = "silu"
        if active.target is aten.gelu.default:
            kind = "gelu_tanh" if arguments(active)["approximate"] == "tanh" else "gelu"
        return build.call(strop.gated.default, match["gate"], match["up"], kind)


class BiasGelu(Rule):
    """Moves the bias of a linear layer into the GELU that is its only user."""

    name = "bias-gelu"
    pattern = Op(
        aten.gelu.default,
        Op(
            aten.linear.default,
            Var("x"),
            Var("weight"),
            Var("bias", is_float, "a bias"),
            name="linear",
        ),
        any_rest=True,
    )

    def rewrite(self, match: Match, build: Builder) -> Node:
        near = build.at(match["linear"])
        product = near.call(aten.linear.default, match["x"], match["weight"])
        approximate = arguments(match.root)["approximate"]
        return build.call(strop.bias_gelu.default, product, match["bias"], approximate)


@dataclass(frozen=True)
class FuseActivations(RulePass):
    """Recognise GELU (erf and tanh) and SiLU written out, and gated activations."""

    name = "activations"

    def rules(self) -> Sequence[Rule]:
        return (ErfGelu(), TanhGelu(), Silu(), Gated())


@dataclass(frozen=True)
class FuseBiasGelu(RulePass):
    """Join the bias of a linear layer with the GELU after it."""

    name = "bias-gelu"

    def rules(self) -> Sequence[Rule]:
        return (BiasGelu(),)
