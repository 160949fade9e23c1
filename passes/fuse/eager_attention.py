"""Attention written out with two products and a softmax becomes ``strop::attention``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx.node import Node

from strop.compiler.build_nodes import Builder
from strop.compiler.passes import RulePass
from strop.compiler.pattern import Match, Miss, is_float
from strop.compiler.program import (
    Program,
    arg,
    arguments,
    dtype_of,
    input_node,
    same_shape,
    same_size,
    shape_of,
)
from strop.compiler.rewrite import Rule
from strop.passes.cleanup.noops import VIEWS
from strop.passes.fuse.attention import SdpaAttention, build_attention, ungroup, why_not_attention
from strop.passes.fuse.layout import transposed_from

aten = torch.ops.aten

PRODUCTS = (aten.matmul.default, aten.bmm.default)
SCALES = (aten.mul.Tensor, aten.div.Tensor)


class EagerAttention(Rule):
    """``softmax(q k^T * scale + bias, hidden where masked) v``.

    On [batch, heads, seq, size], or on [batch*heads, seq, size] as ``bmm`` wants it, with views
    between the two where the library changes its mind.
    """

    name = "attention-eager"
    roots = PRODUCTS

    def match(self, root: Node, program: Program) -> Match | Miss:
        weights, v = root.args[:2]
        bound: dict[str, Any] = {"v": v, "scale": 1.0, "causal": False, "heads": None, "masks": []}
        match = Match(root, bound, [root])
        softmax = self._behind_views(weights, match)
        if softmax.target is not aten.softmax.int:
            return Miss("the first factor is no softmax", root)
        if int(arg(softmax, 1)) % len(shape_of(softmax)) != len(shape_of(softmax)) - 1:
            return Miss("softmax is not over the last axis", softmax, 2)
        return self._scores(softmax, match, program) or match

    def _behind_views(self, node: Any, match: Match) -> Node:
        """Skip views that leave rows and columns alone; remember a split into heads."""
        while node.target in VIEWS and _same_matrix(node, node.args[0]):
            match.inside.append(node)
            node = node.args[0]
            if len(shape_of(node)) == 4:
                match.bound["heads"] = shape_of(node)[1]
        return node  # type: ignore[no-any-return]

    def _scores(self, softmax: Node, match: Match, program: Program) -> Miss | None:
        """Peel masks, biases and scale off, down to the product of q and k."""
        if len(softmax.users) > 1:
            return Miss("the attention weights are used elsewhere too", softmax, 3)
        match.inside.append(softmax)
        node: Any = self._behind_views(input_node(softmax), match)
        while node.target not in PRODUCTS:
            if len(node.users) > 1:
                return Miss("the attention weights are used elsewhere too", node, 3)
            match.inside.append(node)
            inner = self._peel(node, match, program)
            if isinstance(inner, Miss):
                return inner
            if not same_shape(shape_of(inner), shape_of(node)):
                return Miss("the scores are repeated over a mask, bias or factor", node, 3)
            node = self._behind_views(inner, match)
        match.inside.append(node)
        q, kt = node.args[:2]
        kt = _unscaled(kt, match, program)
        k = transposed_from(kt, -2, -1)
        if k is None:
            return Miss("the second factor of the scores is no transposed key", node, 3)
        match.bound |= {"q": q, "k": ungroup(k), "v": ungroup(match["v"])}
        return None

    def _peel(self, node: Node, match: Match, program: Program) -> Node | Miss:
        factor = _factor(node, program)
        if factor is not None:
            match.bound["scale"] *= factor
            return input_node(node)
        if match["scale"] != 1:
            return Miss("a mask or bias is scaled together with the scores", node, 3)
        if node.target is aten.masked_fill.Scalar and arguments(node)["value"] < _HIDES:
            match["masks"].append((arguments(node)["value"], node.args[1]))
            return input_node(node)
        if node.target is aten.add.Tensor and not node.kwargs:
            return self._peel_sum(node, match, program)
        return Miss("between softmax and the scores stands another operator", node, 3)

    def _peel_sum(self, node: Node, match: Match, program: Program) -> Node | Miss:
        a, b = node.args[:2]
        for scores, bias in ((a, b), (b, a)):
            if isinstance(bias, Node) and _is_scores(scores, program):
                if dtype_of(bias) != torch.float32:
                    return Miss(f"the summand is {dtype_of(bias)}", bias, 3)
                match["masks"].append((None, bias))
                return scores  # type: ignore[return-value]
        return Miss("neither summand is a product of queries and keys", node, 3)

    def check(self, match: Match, program: Program) -> str | None:
        ranks = {len(shape_of(match[n])) for n in ("q", "k", "v")}
        if ranks not in ({3}, {4}):
            return "queries, keys and values have different ranks"
        if isinstance(match["heads"], torch.SymInt):
            return "the number of heads is dynamic"
        if any(len(shape_of(mask)) > 4 for _, mask in match["masks"]):
            return "a mask or bias has more axes than batch, heads, queries and keys"
        return _why_not_joined(match["masks"], program) or why_not_attention(match)

    def rewrite(self, match: Match, build: Builder) -> Node:
        folded = len(shape_of(match["q"])) == 3
        split = _Split(match["heads"], build) if folded else _keep
        for name in ("q", "k", "v"):
            match.bound[name] = split(match[name])
        match.bound["mask"] = _joined([(fill, split(m)) for fill, m in match["masks"]], build)
        result = build_attention(match, build)
        if not folded:
            return result
        return build.call(aten.flatten.using_ints, result, 0, 1)


def _same_matrix(a: Node, b: Node) -> bool:
    """Whether two values have the same last two axes."""
    old, new = shape_of(a)[-2:], shape_of(b)[-2:]
    return len(old) == len(new) == 2 and all(same_size(x, y) for x, y in zip(old, new))


def _factor(node: Node, program: Program) -> float | None:
    """The number by which ``node`` multiplies its first argument, or None."""
    if node.target not in SCALES:
        return None
    other = node.args[1]
    weight = program.weight_of(other)
    if weight is not None and weight.numel() == 1:
        other = float(weight)
    if not isinstance(other, (int, float)):
        return None
    return float(other) if node.target is aten.mul.Tensor else 1 / float(other)


def _unscaled(node: Any, match: Match, program: Program) -> Any:
    factor = _factor(node, program)
    if factor is None:
        return node
    match.bound["scale"] *= factor
    match.inside.append(node)
    return node.args[0]


def _is_scores(node: Any, program: Program) -> bool:
    while isinstance(node, Node) and (
        _factor(node, program) is not None
        or (node.target in VIEWS and _same_matrix(node, arg(node, 0)))
    ):
        node = node.args[0]
    return isinstance(node, Node) and node.target in PRODUCTS


def _keep(x: Node) -> Node:
    return x


class _Split:
    """[batch*heads, rows, columns] -> [batch, heads, rows, columns]; one head where unknown."""

    def __init__(self, heads: int | None, build: Builder) -> None:
        self.heads = heads or 1
        self.build = build

    def __call__(self, x: Node) -> Node:
        if len(shape_of(x)) != 3 or (self.heads > 1 and same_size(shape_of(x)[0], 1)):
            return x
        return self.build.call(aten.unflatten.int, x, 0, [-1, self.heads])


Masks = list[tuple[float | None, Node]]
"""What is done to the scores, last first: filled with a number where hidden, or added (None)."""
# Added to any score it is this number, so a row that hides everything is a plain mean.
_FAR = -1e30
# What people hide scores behind is below this, and above it are biases.
_HIDES = -1e4
_END = 2**63 - 1


def _why_not_joined(masks: Masks, program: Program) -> str | None:
    """Why the masks are not one mask in every row, those that hide everything included."""
    finite = {fill for fill, _ in masks if fill is not None and math.isfinite(fill)}
    if len(finite) > 1:
        return f"scores are hidden behind different numbers, {sorted(finite)}"
    near = any(fill > _FAR for fill in finite)
    if near and any(fill is None and _may_hide(bias, program) for fill, bias in masks):
        return "scores are hidden by a fill and by a sum, which differ where a row hides everything"
    return None


def _may_hide(bias: Node, program: Program) -> bool:
    """Whether a bias may hold numbers that hide scores, not only shift them."""
    pending, seen = [bias], {bias}
    while pending and len(seen) < 64:
        node = pending.pop()
        weight = program.weight_of(node)
        if node.op == "placeholder" or (weight is not None and bool((weight < _HIDES).any())):
            return True
        literals = (a for a in (*node.args, *node.kwargs.values()) if isinstance(a, (int, float)))
        if any(-_HIDES <= abs(a) < -_FAR for a in literals if a != _END):
            return True
        new = [n for n in node.all_input_nodes if n not in seen and is_float(n)]
        pending += new
        seen.update(new)
    return bool(pending)


def _joined(masks: Masks, build: Builder) -> Node | None:
    """All masks as one: bool where hidden scores are -inf, else a float to add."""
    if not masks:
        return None
    if all(fill == -math.inf for fill, _ in masks):
        hidden = [mask for _, mask in masks]
        return build.call(aten.logical_not.default, _any_of(hidden, build))
    total: Node | None = None
    for fill, mask in reversed(masks):
        if fill is None:  # next to the product, so the first
            total = mask
            continue
        number = fill if math.isinf(fill) else min(fill, _FAR)
        if total is None:
            total = build.call(aten.where.Scalar, mask, number, 0.0)
        else:
            total = build.call(aten.masked_fill.Scalar, total, mask, number)
    return total


def _any_of(masks: list[Node], build: Builder) -> Node:
    total = masks[0]
    for mask in masks[1:]:
        total = build.call(aten.logical_or.default, total, mask)
    return total


@dataclass(frozen=True)
class FuseAttention(RulePass):
    """Make one node of each attention: SDPA or hand-written, masked, causal, grouped heads."""

    name = "attention"

    def rules(self) -> Sequence[Rule]:
        return (SdpaAttention(), EagerAttention())
