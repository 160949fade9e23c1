"""Zeros padded by an operator of their own become the convolution's.

Libraries that follow TensorFlow's "same" pad first, more on one side than on the other. The
runtime then leaves the blocked layout of its convolutions for every such pad and comes back to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.families import PADS
from strop.compiler.ir.nodes import arguments, per_axis, shape_of, static_int
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.passes import RulePass
from strop.compiler.rewriting.pattern import NEAR, Match, Miss
from strop.compiler.rewriting.rules import Rule

aten = torch.ops.aten
strop = torch.ops.strop


class ConvPad(Rule):
    """``conv(pad(x))``: one sum of both paddings, in the convolution."""

    name = "conv-pad"
    roots = (aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)

    def match(self, root: Node, program: Program) -> Match | Miss:
        conv = arguments(root)
        pad = conv["input"]
        if pad.target not in PADS:
            return Miss("its input is not padded", root)
        around = arguments(pad)
        axes = len(shape_of(conv["weight"])) - 2
        if around.get("mode", "constant") != "constant" or around["value"]:
            return Miss("it is padded with something other than zeros", pad, NEAR)
        if len(shape_of(pad)) != axes + 2 or len(around["pad"]) > 2 * axes:
            return Miss("other axes are padded than those of the kernel", pad, NEAR)
        zeros = _before_and_after(around["pad"], axes)
        if zeros is None:
            return Miss("the padding is computed, or negative", pad, NEAR)
        own = per_axis(conv["padding"], axes)
        total = [z + o for z, o in zip(zeros, [*own, *own])]
        bound = {**conv, "input": around["self"], "pads": total}
        return Match(root, bound, [root, pad])

    def rewrite(self, match: Match, build: Builder) -> Node:
        pads = match["pads"]
        axes = len(pads) // 2
        x, weight, bias, groups = (match[n] for n in ("input", "weight", "bias", "groups"))
        stride, dilation = (per_axis(match[n], axes) for n in ("stride", "dilation"))
        if pads[:axes] == pads[axes:]:
            padding = pads[:axes]
            return build.call(match.root.target, x, weight, bias, stride, padding, dilation, groups)
        return build.call(
            strop.padded_conv.default, x, weight, bias, stride, pads, dilation, groups
        )


def _before_and_after(pad: Sequence[Any], axes: int) -> list[int] | None:
    """Torch's pairs, last axis first, as the zeros before each axis and then after each."""
    sizes = [static_int(p) for p in pad]
    known = [s for s in sizes if s is not None and s >= 0]
    if len(known) < len(sizes):
        return None
    known += [0] * (2 * axes - len(known))
    return [*known[-2::-2], *known[::-2]]


@dataclass(frozen=True)
class FoldPads(RulePass):
    """Fold padding with zeros into the convolution after it."""

    name = "conv-pads"

    def rules(self) -> Sequence[Rule]:
        return (ConvPad(),)
