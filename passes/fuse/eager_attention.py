"""Attention written out with two products and a softmax becomes ``strop::attention``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.families import PRODUCTS, VIEWS
from strop.compiler.ir.nodes import arg, dtype_of, input_node, same_shape, shape_of, value_of
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.passes import RulePass
from strop.compiler.rewriting.pattern import NEAR, Match, Miss
from strop.compiler.rewriting.rules import Rule
from strop.compiler.targets.target import Target
from strop.passes.fuse.attention import SdpaAttention, build_attention, ungroup, why_not_attention
from strop.passes.fuse.batch_axes import BatchAxes, find_batch_axes
from strop.passes.fuse.layout import transposed, transposed_from
from strop.passes.fuse.score_mask import build_mask, scale_of, scaled_queries, why_not_one_mask
from strop.passes.fuse.scores import (
    Scores,
    Sizes,
    lead_of,
    number_factor,
    take_apart,
    without_batch_views,
)
from strop.passes.fuse.softcap import apart

aten = torch.ops.aten

# Operators that models apply to attention weights before the product with the values.
_ON_WEIGHTS = (
    aten.mul.Tensor,
    aten.div.Tensor,
    aten.add.Tensor,
    aten.sub.Tensor,
    aten.masked_fill.Scalar,
    aten.where.self,
    aten.nan_to_num.default,
    aten.dropout.default,
    aten._to_copy.default,
    aten.to.dtype,
    *VIEWS,
)


@dataclass(frozen=True)
class Factor:
    """A factor of one of the two products, without its scale and its transpose.

    Attributes:
        node: the value.
        number: what multiplies it.
        turned: whether it is the transpose, in its last two axes, of what attention takes.
    """

    node: Node
    number: float = 1.0
    turned: bool = False

    @property
    def value(self) -> torch.Tensor:
        """The type of what attention takes."""
        value: torch.Tensor = value_of(self.node)
        return value.mT if self.turned else value

    def build(self, axes: BatchAxes, build: Builder) -> Node:
        """What attention takes, as [batch, heads, rows, size]."""
        whole = transposed(self.node, build) if self.turned else self.node
        return axes.of_value(whole, build)

    def ungrouped(self) -> Factor:
        """The heads of keys or values before each was repeated for several queries."""
        return replace(self, node=ungroup(self.node))


class EagerAttention(Rule):
    """``softmax(q k^T * scale + bias, hidden where masked) v``, or the transpose of it.

    The scaled product may be bounded by a tanh.
    """

    name = "attention-eager"
    roots = PRODUCTS

    def match(self, root: Node, program: Program) -> Match | Miss:
        weights, turned = _softmax_of(arg(root, 0)), False
        if weights is None:
            weights, turned = _softmax_of_transpose(arg(root, 1)), True
        if weights is None:
            return _why_no_softmax(root)
        softmax = weights[-1]
        if int(arg(softmax, 1)) % len(shape_of(softmax)) != len(shape_of(softmax)) - 1:
            return Miss("softmax is not over the last axis", softmax, NEAR)
        if dtype_of(softmax) != dtype_of(softmax.args[0]):
            return Miss(f"softmax is computed in {dtype_of(softmax)}", softmax, NEAR)
        used = next((n for n in weights if len(n.users) > 1), None)
        if used is not None:
            return Miss("the attention weights are used elsewhere too", used, NEAR)
        scores = take_apart(arg(softmax, 0), program)
        if isinstance(scores, Miss):
            return scores
        v = Factor(arg(root, 0 if turned else 1), turned=turned)
        bound = _factors(scores, v, program) | {
            "steps": scores.steps,
            "capped": apart(scores.steps),
            "leads": (scores.leads[0], lead_of(root)),
            "axes": find_batch_axes([*scores.leads, lead_of(root)]),
        }
        return Match(root, bound, [root, *weights, *scores.inside])

    def check(self, match: Match, program: Program) -> str | None:
        for name in ("axes", "capped"):
            if isinstance(match[name], str):
                return str(match[name])
        reason = why_not_one_mask(match["capped"].after, program)
        return reason or _why_not_factors(
            self.target, match["q"], match["k"], match["v"], *match["leads"]
        )

    def rewrite(self, match: Match, build: Builder) -> Node:
        axes, steps, capped = match["axes"], match["steps"], match["capped"]
        q, k, v = (match[name].build(axes, build) for name in ("q", "k", "v"))
        scale = match["q"].number * match["k"].number * scale_of(steps)
        mask = build_mask(capped.after, q, axes, build)
        q = scaled_queries(q, steps, axes, build)
        made = build_attention(q, k, v, mask, scale, False, build, capped.softcap)
        result = axes.back(made, match["leads"][1], build)
        return build.call(aten.transpose.int, result, -2, -1) if match["v"].turned else result


def _softmax_of(weights: Node) -> list[Node] | None:
    """The views of batch axes between a value and its softmax, then the softmax; else None."""
    softmax, passed = without_batch_views(weights)
    return [*passed, softmax] if softmax.target is aten.softmax.int else None


def _softmax_of_transpose(x: Node) -> list[Node] | None:
    """The same of ``softmax(...)^T``."""
    turned, passed = without_batch_views(x)
    weights = transposed_from(turned, -2, -1)
    found = None if weights is None else _softmax_of(weights)
    return None if found is None else [*passed, turned, *found]


def _why_no_softmax(root: Node) -> Miss:
    """The operator between a product and the softmax before it, if there is one."""
    first = node = input_node(root)
    while node.target in _ON_WEIGHTS:
        node = input_node(node)
    if node.target is aten.softmax.int:
        return Miss("the attention weights are changed before they meet the values", first, NEAR)
    return Miss("no factor is a softmax", root)


def _factors(scores: Scores, v: Factor, program: Program) -> dict[str, Factor]:
    """Queries, keys and values by name."""
    q = _without_numbers(Factor(scores.q), program)
    k = _without_numbers(Factor(scores.kt, turned=True), program)
    found = {"q": q, "k": k, "v": v}
    if len(scores.leads[0]) == 2:
        found |= {"k": k.ungrouped(), "v": v.ungrouped()}
    return found


def _without_numbers(factor: Factor, program: Program) -> Factor:
    """A factor without the numbers that multiply it and, where it is turned, its transpose."""
    while True:
        scaled = number_factor(factor.node, program)
        whole = transposed_from(factor.node, -2, -1) if factor.turned else None
        if scaled is not None and same_shape(shape_of(scaled[0]), shape_of(factor.node)):
            factor = replace(factor, node=scaled[0], number=factor.number * scaled[1])
        elif whole is not None:
            factor = replace(factor, node=whole, turned=False)
        else:
            return factor


def _why_not_factors(
    target: Target, q: Factor, k: Factor, v: Factor, product: Sizes, result: Sizes
) -> str | None:
    """The condition on queries, keys and values that fails, in words."""
    values = q.value, k.value, v.value
    ranks = {len(value.shape) for value in values}
    if ranks == {4}:
        return why_not_attention(target, *values)
    for value, lead in zip(values, (product, product, result)):
        if not target.fuses(value.dtype):
            return f"queries, keys or values are {value.dtype}"
        if not same_shape(value.shape[:-2], lead):
            return "queries, keys and values have different batch axes"
    return None


@dataclass(frozen=True)
class FuseAttention(RulePass):
    """Make one node of each attention: SDPA or hand-written, masked, causal, grouped heads."""

    name = "attention"

    def rules(self) -> Sequence[Rule]:
        return (SdpaAttention(), EagerAttention())
