"""Residual sums behind linear layers, computed before the sums of products are stored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.nodes import arguments, dtype_of, same_shape, shape_of
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.pattern import NEAR, Match, Miss, is_float
from strop.compiler.rewriting.rules import Rule
from strop.compiler.targets.target import Target
from strop.passes.kernels.layers import Layer, layer_of
from strop.passes.kernels.norms import SKIP_NORMS, norm_arguments
from strop.passes.kernels.results import replace_results

aten = torch.ops.aten


def layer_and_residual(
    root: Node, summands: Iterable[Any], target: Target, dense: bool
) -> tuple[Layer, Node] | Miss:
    """Of two summands a linear layer that can add the other one, and that other one."""
    a, b = summands
    best = Miss("neither summand is a linear layer of a kernel", root)
    for value, other in ((a, b), (b, a)):
        layer = layer_of(value, target, dense)
        if layer is None:
            continue
        reason = _why_not(layer, other)
        if reason is None:
            return layer, other
        best = Miss(reason, value, NEAR)
    return best


def _why_not(layer: Layer, other: Any) -> str | None:
    if not is_float(other) or dtype_of(other) != dtype_of(layer.node):
        return "the other summand has another dtype"
    if not same_shape(shape_of(other), shape_of(layer.node)):
        return "the other summand has another shape"
    if other is layer.node or len(layer.node.users) > 1:
        return "the value before the sum is used elsewhere too"
    if layer.values["residual"] is not None:
        return "the linear layer adds a residual already"
    return None


@dataclass(frozen=True)
class LinearResidual(Rule):
    """``linear(x) + y`` where both have one shape.

    Attributes:
        dense: whether linear layers in float count.
    """

    name = "linear-residual"
    roots = (aten.add.Tensor,)
    dense: bool = False

    def match(self, root: Node, program: Program) -> Match | Miss:
        values = arguments(root)
        if values["alpha"] != 1:
            return Miss("the sum has a factor", root, NEAR)
        found = layer_and_residual(root, root.args[:2], self.target, self.dense)
        if isinstance(found, Miss):
            return found
        return Match(root, {"layer": found[0], "residual": found[1]}, [root, found[0].node])

    def rewrite(self, match: Match, build: Builder) -> Node:
        made: Node = match["layer"].having(residual=match["residual"]).call(build)
        return made


@dataclass(frozen=True)
class LinearResidualNorm(Rule):
    """The sum of a skip norm: stored by the product, it is read once instead of twice.

    Attributes:
        dense: whether linear layers in float count.
    """

    name = "linear-residual-norm"
    roots = SKIP_NORMS
    dense: bool = False

    def match(self, root: Node, program: Program) -> Match | Miss:
        found = layer_and_residual(root, root.args[:2], self.target, self.dense)
        if isinstance(found, Miss):
            return found
        return Match(root, {"layer": found[0], "residual": found[1]}, [root, found[0].node])

    def rewrite(self, match: Match, build: Builder) -> None:
        total = match["layer"].having(residual=match["residual"]).call(build)
        results = (_norm(match.root, total, build), total)
        replace_results(match.root, results, build.program)


def _norm(skip: Node, total: Node, build: Builder) -> Node:
    """The norm alone, of the sum."""
    _, _, weight, bias, eps, rms = norm_arguments(skip)
    size = [int(shape_of(total)[-1])]
    if rms:
        return build.call(aten.rms_norm.default, total, size, weight, eps)
    return build.call(aten.layer_norm.default, total, size, weight, bias, eps)
