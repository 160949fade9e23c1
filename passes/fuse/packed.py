"""Sibling linear layers on one input as one wider matrix product."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.constants import is_weight_expression
from strop.compiler.ir.families import VIEWS
from strop.compiler.ir.nodes import arguments, input_node, shape_of
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.passes import RulePass
from strop.compiler.rewriting.pattern import NEAR, Match, Miss
from strop.compiler.rewriting.rules import Rule

aten = torch.ops.aten
strop = torch.ops.strop

# What may stand between a projection and the attention that reads it.
_BETWEEN = (
    *VIEWS,
    aten.transpose.int,
    aten.rms_norm.default,
    aten.layer_norm.default,
    aten.mul.Tensor,
    strop.rotary.default,
)


def projection_of(x: Node) -> Node | None:
    """The linear layer behind q, k, v or a gate, through layout, norm and rotary."""
    while x.target in _BETWEEN:
        x = input_node(x)
    return x if x.target is aten.linear.default else None


class _Packed(Rule):
    """Packs the projections of some arguments of the root that share their input."""

    arguments: tuple[str, ...] = ()

    def match(self, root: Node, program: Program) -> Match | Miss:
        values = arguments(root)
        found = [projection_of(values[name]) for name in self.arguments]
        linears = list(dict.fromkeys(n for n in found if n is not None))
        if not linears:
            return Miss("its inputs are not linear layers", root)
        groups = [[n for n in linears if n.args[0] is x.args[0]] for x in linears]
        group = max(groups, key=len)
        if len(group) < 2:
            return Miss("its linear layers read different inputs", linears[0], NEAR)
        computed = next((n for n in group if not _is_constant(n)), None)
        if computed is not None:
            return Miss("a weight or bias is computed from an input", computed, NEAR)
        return Match(root, {"linears": sorted(group)}, [])

    def rewrite(self, match: Match, build: Builder) -> None:
        pack_linears(match["linears"], Builder(build.program, match["linears"][0], build.made_by))


class PackedQKV(_Packed):
    """q, k, v (or k, v alone in cross attention) in one product."""

    name = "packed-qkv"
    roots = (strop.attention.default, strop.cached_attention.default)
    arguments = ("q", "k", "v")


class PackedGate(_Packed):
    """Gate and up in one product."""

    name = "packed-gate"
    roots = (strop.gated.default,)
    arguments = ("gate", "up")


def _is_constant(linear: Node) -> bool:
    given = (arguments(linear)[name] for name in ("weight", "bias"))
    return all(is_weight_expression(value) for value in given if value is not None)


def _hoist(value: Node | None, before: Node) -> None:
    """Move what a weight is computed from to where it is needed first."""
    if value is None or value.op == "get_attr" or value < before:
        return
    for source in value.all_input_nodes:
        _hoist(source, before)
    before.prepend(value)


def pack_linears(linears: list[Node], build: Builder) -> None:
    """Replace linears on one input by one linear and a split.

    The weight is an expression, ``cat`` of the original ones: nothing is copied, and each can
    still be trained, pruned and traced under its own name.
    """
    values = [arguments(n) for n in linears]
    x, weights, biases = values[0]["input"], [v["weight"] for v in values], None
    for value in values:
        _hoist(value["weight"], build.before)
        _hoist(value["bias"], build.before)
    weight = build.call(aten.cat.default, weights)
    if any(v["bias"] is not None for v in values):
        parts = [
            v["bias"] if v["bias"] is not None else _zero_bias(v["weight"], build) for v in values
        ]
        biases = build.call(aten.cat.default, parts)
    packed = build.call(aten.linear.default, x, weight, biases)
    sizes = [int(shape_of(w)[0]) for w in weights]
    split = build.call(aten.split_with_sizes.default, packed, sizes, -1)
    for i, linear in enumerate(linears):
        linear.replace_all_uses_with(build.call(operator.getitem, split, i))
    build.program.erase_dead(linears)


def _zero_bias(weight: Node, build: Builder) -> Node:
    return build.call(aten.new_zeros.default, weight, [int(shape_of(weight)[0])])


@dataclass(frozen=True)
class PackLinears(RulePass):
    """Pack the projections of each attention into one product, on request gate and up too.

    Attributes:
        gates: also pack the two projections of SwiGLU and GeGLU.
    """

    name = "packed"
    after = ("attention",)
    # The shared input of q, k and v is then quantized once.
    before = ("quantize",)

    gates: bool = False

    def rules(self) -> Sequence[Rule]:
        return (PackedQKV(), PackedGate()) if self.gates else (PackedQKV(),)
