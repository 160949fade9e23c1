"""Activations behind linear layers, computed before the sums are stored."""

from __future__ import annotations

from dataclasses import dataclass

from torch.fx.node import Node

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.nodes import input_node
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.pattern import NEAR, Match, Miss
from strop.compiler.rewriting.rules import Rule
from strop.passes.kernels.layers import ACTIVATIONS, activation_name, layer_of


@dataclass(frozen=True)
class LinearActivation(Rule):
    """``activation(linear(x))``.

    Attributes:
        dense: whether linear layers in float count.
    """

    name = "linear-activation"
    roots = ACTIVATIONS
    dense: bool = False

    def match(self, root: Node, program: Program) -> Match | Miss:
        value = input_node(root)
        layer = layer_of(value, self.target, self.dense)
        if layer is None:
            return Miss("no linear layer of a kernel is before it", value)
        if len(value.users) > 1:
            return Miss("the value before the activation is used elsewhere too", value, NEAR)
        if not layer.is_plain:
            return Miss("something follows the product already", value, NEAR)
        return Match(root, {"layer": layer}, [root, value])

    def rewrite(self, match: Match, build: Builder) -> Node:
        kind = activation_name(match.root)
        made: Node = match["layer"].having(activation=kind).call(build)
        return made
