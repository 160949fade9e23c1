"""Gate and up of SwiGLU and GeGLU (arXiv:2002.05202)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.nodes import arguments, same_shape, shape_of
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.pattern import NEAR, Match, Miss
from strop.compiler.rewriting.rules import Rule
from strop.passes.kernels.layers import layer_of

strop = torch.ops.strop

# What the two layers read in common, and what each of them has for itself.
_COMMON: dict[Any, tuple[str, ...]] = {
    strop.fused_linear.default: ("x",),
    strop.linear_int8.default: ("q", "scale"),
}


@dataclass(frozen=True)
class GatedLinears(Rule):
    """Both products in one kernel, where they read one value.

    Attributes:
        dense: whether linear layers in float count.
    """

    name = "linear-gated"
    roots = (strop.gated.default,)
    dense: bool = False

    def match(self, root: Node, program: Program) -> Match | Miss:
        values = arguments(root)
        both = [layer_of(values[name], self.target, self.dense) for name in ("gate", "up")]
        gate, up = both
        if gate is None or up is None:
            return Miss("gate or up is no linear layer of a kernel", root)
        if gate.target is not up.target or gate.target not in _COMMON:
            return Miss("no kernel computes both of its products", root, NEAR)
        if any(len(one.node.users) > 1 or not one.is_plain for one in (gate, up)):
            return Miss("gate or up is used elsewhere too", root, NEAR)
        if any(gate.values[n] is not up.values[n] for n in _COMMON[gate.target]):
            return Miss("gate and up read different values", root, NEAR)
        if not same_shape(*(shape_of(one.values["weight"]) for one in (gate, up))):
            return Miss("gate and up have different sizes", root, NEAR)
        return Match(root, {"gate": gate, "up": up}, [root, gate.node, up.node])

    def rewrite(self, match: Match, build: Builder) -> Node:
        gate, up, kind = match["gate"].values, match["up"].values, match.root.args[2]
        biases = (gate["bias"], up["bias"], kind)
        if "x" in gate:
            weights = (gate["weight"], up["weight"])
            return build.call(strop.gated_linear.default, gate["x"], *weights, *biases)
        held = [values[n] for values in (gate, up) for n in ("weight", "weight_scale")]
        given = (gate["q"], gate["scale"], *held, *biases, gate["dtype"])
        return build.call(strop.gated_linear_int8.default, *given)
