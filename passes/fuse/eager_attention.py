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
from strop.compiler.pattern import Match, Miss
from strop.compiler.program import (
    Program,
    arg,
    arguments,
    input_node,
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
        node: Any = softmax
        while node.target not in PRODUCTS:
            if len(node.users) > 1:
                return Miss("the attention weights are used elsewhere too", node, 3)
            match.inside.append(node)
            inner = self._peel(node, match, program)
            if isinstance(inner, Miss):
                return inner
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
        if node.target is aten.softmax.int:
            return input_node(node)
        factor = _factor(node, program)
        if factor is not None:
            match.bound["scale"] *= factor
            return input_node(node)
        if match["scale"] != 1:
            return Miss("a mask or bias is scaled together with the scores", node, 3)
        if node.target is aten.masked_fill.Scalar and arguments(node)["value"] < -1e4:
            infinite = math.isinf(arguments(node)["value"])
            match["masks"].append(("never" if infinite else "hide", node.args[1]))
            return input_node(node)
        if node.target is aten.add.Tensor and not node.kwargs:
            return self._peel_sum(node, match, program)
        return Miss("between softmax and the scores stands another operator", node, 3)

    def _peel_sum(self, node: Node, match: Match, program: Program) -> Node | Miss:
        a, b = node.args[:2]
        for scores, bias in ((a, b), (b, a)):
            if isinstance(bias, Node) and _is_scores(scores, program):
                match["masks"].append(("add", bias))
                return scores  # type: ignore[return-value]
        return Miss("neither summand is a product of queries and keys", node, 3)

    def check(self, match: Match, program: Program) -> str | None:
        ranks = {len(shape_of(match[n])) for n in ("q", "k", "v")}
        if ranks not in ({3}, {4}):
            return "queries, keys and values have different ranks"
        if isinstance(match["heads"], torch.SymInt):
            return "the number of heads is dynamic"
        return why_not_attention(match)

    def rewrite(self, match: Match, build: Builder) -> Node:
        folded = len(shape_of(match["q"])) == 3
        split = _Split(match["heads"], build) if folded else _keep
        for name in ("q", "k", "v"):
            match.bound[name] = split(match[name])
        match.bound["mask"] = _joined([(kind, split(m)) for kind, m in match["masks"]], build)
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


def _joined(masks: list[tuple[str, Node]], build: Builder) -> Node | None:
    """All biases added up, and hidden where any mask says so.

    A row that hides everything behind a finite number is a plain mean, which only an added float
    mask can say; behind -inf it is NaN, so a bool mask serves.
    """
    bias = hidden = None
    for kind, mask in masks:
        if kind == "add":
            bias = mask if bias is None else build.call(aten.add.Tensor, bias, mask)
        else:
            hidden = mask if hidden is None else build.call(aten.logical_or.default, hidden, mask)
    if hidden is None:
        return bias
    floor = torch.finfo(torch.float32).min
    if bias is not None:
        return build.call(aten.masked_fill.Scalar, bias, hidden, floor)
    if any(kind == "hide" for kind, _ in masks):
        return build.call(aten.where.Scalar, hidden, floor, 0.0)
    return build.call(aten.logical_not.default, hidden)


@dataclass(frozen=True)
class FuseAttention(RulePass):
    """Make one node of each attention: SDPA or hand-written, masked, causal, grouped heads."""

    name = "attention"

    def rules(self) -> Sequence[Rule]:
        return (SdpaAttention(), EagerAttention())
