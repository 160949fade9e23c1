"""Batch norm folded into the convolution or the linear layer before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.families import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS, VIEWS
from strop.compiler.ir.nodes import arg, arguments, dtype_of, input_node, shape_of
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.passes import RulePass
from strop.compiler.rewriting.pattern import NEAR, Match, Miss
from strop.compiler.rewriting.rules import Rule
from strop.passes.fuse.layout import axis_order, keeps_last_axis

aten = torch.ops.aten

LAYERS = (*CONVOLUTIONS, *TRANSPOSED_CONVOLUTIONS, aten.linear.default)
_CHANNELS = 1  # The axis that batch norm scales and shifts.


class LayerBatchNorm(Rule):
    """``batch_norm(layer(x, w, b))`` with running statistics is ``layer(x, w', b')``.

    With s = gamma / sqrt(var + eps), one number a channel: w' = w s, b' = (b - mean) s + beta.
    Between the two may stand changes of layout that keep the layer's channels in one axis.
    """

    name = "conv-bn"
    roots = (aten.batch_norm.default,)

    def match(self, root: Node, program: Program) -> Match | Miss:
        if arguments(root)["training"]:
            return Miss("batch norm is in train mode", root, NEAR)
        node, axis, between = input_node(root), _CHANNELS, list[Node]()
        while node.target not in LAYERS:
            if len(node.users) > 1:
                return Miss("the value before the batch norm is used elsewhere too", node, NEAR)
            before = _axis_before(node, axis)
            if before is None:
                return Miss("no convolution or linear layer comes before it", node, NEAR)
            between.append(node)
            node, axis = input_node(node), before
        if len(node.users) > 1:
            return Miss("an inner value is used elsewhere too", node, NEAR)
        bound = {"layer": node, "axis": axis, "between": between}
        return Match(root, bound, [root, *between, node])

    def check(self, match: Match, program: Program) -> str | None:
        layer, norm = match["layer"], arguments(match.root)
        weight = arguments(layer)["weight"]
        if layer.target is aten.linear.default:
            if match["axis"] != len(shape_of(layer)) - 1:
                return "batch norm and the linear layer have different axes for channels"
        elif len(shape_of(layer)) != len(shape_of(weight)):
            return "the convolution has no batch axis, so batch norm has another axis for channels"
        elif match["axis"] != _CHANNELS:
            return "batch norm and the convolution have different axes for channels"
        used = [weight, *(norm[n] for n in ("weight", "bias", "running_mean", "running_var"))]
        dtypes = {dtype_of(value) for value in used if value is not None}
        if not dtypes <= {torch.float32, torch.float64}:
            return "its weights are in half precision, and would be rounded again"
        return None

    def rewrite(self, match: Match, build: Builder) -> Node:
        layer = arguments(match["layer"])
        scale, bias = _scale_and_bias(arguments(match.root), layer["bias"], build)
        weight = _scaled_weight(match["layer"], scale, build)
        rest = [v for k, v in layer.items() if k not in ("input", "weight", "bias")]
        result = build.call(match["layer"].target, layer["input"], weight, bias, *rest)
        for node in reversed(match["between"]):
            result = build.call(node.target, result, *node.args[1:], **node.kwargs)
        return result


def _axis_before(node: Node, axis: int) -> int | None:
    """Which axis of a layout change's input becomes ``axis`` of its result; None if none does."""
    order = axis_order(node)
    if order is not None:
        return order[axis]
    is_last = axis == len(shape_of(node)) - 1
    if node.target in VIEWS and is_last and keeps_last_axis(node):
        return len(shape_of(arg(node, 0))) - 1
    return None


def _scale_and_bias(norm: dict[str, Any], bias: Node | None, build: Builder) -> tuple[Node, Node]:
    """s and b' of the rule, [channels] each."""
    widened = build.call(aten.add.Tensor, norm["running_var"], norm["eps"])
    scale = build.call(aten.rsqrt.default, widened)
    if norm["weight"] is not None:
        scale = build.call(aten.mul.Tensor, scale, norm["weight"])
    shift = norm["running_mean"]
    if bias is not None:
        shift = build.call(aten.sub.Tensor, shift, bias)
    moved = build.call(aten.neg.default, build.call(aten.mul.Tensor, shift, scale))
    if norm["bias"] is not None:
        moved = build.call(aten.add.Tensor, moved, norm["bias"])
    return scale, moved


def _scaled_weight(layer: Node, scale: Node, build: Builder) -> Node:
    """The weight with each output channel scaled.

    Channels are the first axis of the weight [out, in, ...] of a convolution or linear layer. That
    of a transposed convolution is [in, out / groups, ...], the inputs of a group side by side.
    """
    weight = arguments(layer)["weight"]
    if layer.target not in TRANSPOSED_CONVOLUTIONS:
        ones = [1] * (len(shape_of(weight)) - 1)
        wide = build.call(aten.reshape.default, scale, [-1, *ones])
        return build.call(aten.mul.Tensor, weight, wide)
    groups, ones = arguments(layer)["groups"], [1] * (len(shape_of(weight)) - 2)
    by_group = build.call(aten.unflatten.int, weight, 0, [groups, -1])
    wide = build.call(aten.reshape.default, scale, [groups, 1, -1, *ones])
    scaled = build.call(aten.mul.Tensor, by_group, wide)
    return build.call(aten.flatten.using_ints, scaled, 0, 1)


@dataclass(frozen=True)
class FoldBatchNorm(RulePass):
    """Fold batch norm into the convolution or linear layer before it."""

    name = "conv-bn"
    # Batch norm is looked for behind torch's own convolutions.
    before = ("conv-pads",)

    def rules(self) -> Sequence[Rule]:
        return (LayerBatchNorm(),)
