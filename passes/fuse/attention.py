"""Attention: SDPA calls and the hand-written form become ``strop::attention``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.fx.node import Node

from strop.compiler.build_nodes import Builder
from strop.compiler.passes import RulePass
from strop.compiler.pattern import Match, Miss
from strop.compiler.program import Program, arguments, dtype_of, same_size, shape_of
from strop.compiler.rewrite import Rule
from strop.passes.cleanup.noops import VIEWS
from strop.passes.fuse.layout import pack_heads, transposed_from, unpack_heads

aten = torch.ops.aten
strop = torch.ops.strop


def ungroup(x: Node) -> Node:
    """The value before ``repeat_kv``: [batch, kv_heads, 1 -> n, seq, size] flattened, else x."""
    if x.target is aten.repeat_interleave.self_int and x.args[2] == 1:
        return x.args[0]  # type: ignore[return-value]
    if x.target not in VIEWS or not isinstance(x.args[0], Node):
        return x
    expanded = x.args[0]
    if expanded.target is not aten.expand.default or len(shape_of(expanded)) != 5:
        return x
    inserted = expanded.args[0]
    assert isinstance(inserted, Node)
    if inserted.target is not aten.unsqueeze.default or inserted.args[1] != 2:
        return x
    return inserted.args[0]  # type: ignore[return-value]


class SdpaAttention(Rule):
    """``scaled_dot_product_attention`` on [batch, heads, seq, size]."""

    name = "attention-sdpa"
    roots = (aten.scaled_dot_product_attention.default,)

    def match(self, root: Node, program: Program) -> Match | Miss:
        a = arguments(root)
        if len(shape_of(a["query"])) != 4:
            return Miss("queries are not [batch, heads, seq, size]", root, 2)
        if a["dropout_p"]:
            return Miss("drops attention weights: the module is in train mode", root, 2)
        k, v = ungroup(a["key"]), ungroup(a["value"])
        bound = {"q": a["query"], "k": k, "v": v, "mask": a["attn_mask"], "causal": a["is_causal"]}
        size = int(shape_of(a["query"])[-1])
        bound["scale"] = a["scale"] if a["scale"] is not None else 1 / math.sqrt(size)
        return Match(root, bound, [root, a["key"], a["value"]])

    def check(self, match: Match, program: Program) -> str | None:
        return _why_not(match)

    def rewrite(self, match: Match, build: Builder) -> Node:
        return build_attention(match, build)


class EagerAttention(Rule):
    """``softmax(q k^T * scale + mask) v`` written out, on 4 axes, or on 3 as ``bmm`` does."""

    name = "attention-eager"
    roots = (aten.matmul.default, aten.bmm.default)

    def match(self, root: Node, program: Program) -> Match | Miss:
        probabilities, v = root.args[:2]
        if not isinstance(probabilities, Node) or probabilities.target is not aten.softmax.int:
            return Miss("the first factor is no softmax", root)
        match = Match(root, {"v": v, "mask": None, "scale": 1.0, "causal": False}, [root])
        if int(probabilities.args[1]) % len(shape_of(probabilities)) != len(  # type: ignore[call-overload,arg-type]
            shape_of(probabilities)
        ) - 1:
            return Miss("softmax is not over the last axis", probabilities, 2)
        return self._scores(probabilities, match) or match

    def _scores(self, node: Node, match: Match) -> Miss | None:
        """Peel softmax, mask and scale off, down to the product of q and k."""
        while node.target not in self.roots:
            if len(node.users) > 1:
                return Miss("the attention weights are used elsewhere too", node, 3)
            match.inside.append(node)
            inner = self._peel(node, match)
            if isinstance(inner, Miss):
                return inner
            node = inner
        match.inside.append(node)
        q, kt = node.args[:2]
        k = transposed_from(kt, -2, -1)
        if k is None:
            return Miss("the second factor of the scores is no transposed key", node, 3)
        match.bound |= {"q": q, "k": ungroup(k), "v": ungroup(match["v"])}
        return None

    def _peel(self, node: Node, match: Match) -> Node | Miss:
        first = node.args[0]
        if node.target is aten.softmax.int:
            return first  # type: ignore[return-value]
        before_mask = match["mask"] is None
        if node.target in (aten.mul.Tensor, aten.div.Tensor) and isinstance(
            node.args[1], (int, float)
        ):
            factor = float(node.args[1])
            match.bound["scale"] *= factor if node.target is aten.mul.Tensor else 1 / factor
            return first  # type: ignore[return-value]
        if node.target is aten.add.Tensor and before_mask and match["scale"] == 1:
            return self._peel_sum(node, match)
        if node.target is aten.masked_fill.Scalar and before_mask and match["scale"] == 1:
            match.bound["hide"] = node.args[1]
            match.bound["mask"] = node.args[1]
            return first  # type: ignore[return-value]
        return Miss("between softmax and the scores stands another operator", node, 3)

    def _peel_sum(self, node: Node, match: Match) -> Node | Miss:
        a, b = node.args[:2]
        if isinstance(a, Node) and isinstance(b, Node):
            for scores, mask in ((a, b), (b, a)):
                if self._is_scores(scores):
                    match.bound["mask"] = mask
                    return scores
        return Miss("neither summand is a product of queries and keys", node, 3)

    def _is_scores(self, node: Node) -> bool:
        while node.target in (aten.mul.Tensor, aten.div.Tensor) and isinstance(
            node.args[1], (int, float)
        ):
            node = node.args[0]  # type: ignore[assignment]
        return node.target in self.roots

    def check(self, match: Match, program: Program) -> str | None:
        ranks = {len(shape_of(match[n])) for n in ("q", "k", "v")}
        if ranks not in ({3}, {4}):
            return "queries, keys and values have different ranks"
        return _why_not(match)

    def rewrite(self, match: Match, build: Builder) -> Node:
        if match.get("hide") is not None:
            match.bound["mask"] = build.call(aten.logical_not.default, match["hide"])
        if len(shape_of(match["q"])) == 4:
            return build_attention(match, build)
        for name in ("q", "k", "v"):
            match.bound[name] = build.call(aten.unsqueeze.default, match[name], 1)
        if match["mask"] is not None and len(shape_of(match["mask"])) == 3:
            match.bound["mask"] = build.call(aten.unsqueeze.default, match["mask"], 1)
        return build.call(aten.squeeze.dim, build_attention(match, build), 1)


def _why_not(match: Match) -> str | None:
    q, k, v = shape_of(match["q"]), shape_of(match["k"]), shape_of(match["v"])
    if dtype_of(match["q"]) != torch.float32:
        return f"queries are {dtype_of(match['q'])}"
    if len(q) == 4 and any(isinstance(s, torch.SymInt) for s in (q[1], k[1], v[1])):
        return "the number of heads is dynamic"
    if len(q) == 4 and (k[1] != v[1] or int(q[1]) % int(k[1])):
        return f"{q[1]} query heads do not divide over {k[1]} key and {v[1]} value heads"
    if not same_size(q[0], k[0]) or not same_size(k[-2], v[-2]):
        return "batch or key sizes differ"
    return None


def build_attention(match: Match, build: Builder) -> Node:
    """One attention node, on packed heads where q, k and v come from packed heads."""
    q, k, v = match["q"], match["k"], match["v"]
    q_heads, kv_heads = int(shape_of(q)[1]), int(shape_of(k)[1])
    rest = (match["mask"], q_heads, kv_heads, float(match["scale"]), match["causal"])
    packed = [pack_heads(x, build) for x in (q, k, v)]
    if any(x is None for x in packed):
        return build.call(strop.attention.default, q, k, v, *rest)
    out = build.call(strop.attention.default, *packed, *rest)
    return unpack_heads(out, q_heads, build)


@dataclass(frozen=True)
class FuseAttention(RulePass):
    """Make one node of each attention: SDPA or hand-written, masked, causal, grouped heads."""

    name = "attention"

    def rules(self) -> Sequence[Rule]:
        return (SdpaAttention(), EagerAttention())


