"""Turns SDPA calls into ``strop::attention``; helpers for both attention passes."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.families import VIEWS
from strop.compiler.ir.nodes import (
    arguments,
    input_node,
    same_shape,
    same_size,
    shape_of,
    static_int,
    value_of,
)
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.pattern import NEAR, Match, Miss
from strop.compiler.rewriting.rules import Rule
from strop.compiler.targets.target import Target
from strop.passes.fuse.layout import pack_heads, unpack_heads

aten = torch.ops.aten
strop = torch.ops.strop


def ungroup(x: Node) -> Node:
    """The value before ``repeat_kv``: [batch, kv_heads, 1 -> n, seq, size] flattened, else x."""
    if x.target is aten.repeat_interleave.self_int and x.args[2] == 1:
        return input_node(x)
    if x.target not in VIEWS:
        return x
    expanded = input_node(x)
    if expanded.target is not aten.expand.default:
        return x
    inserted = input_node(expanded)
    if inserted.target is not aten.unsqueeze.default or inserted.args[1] not in (2, -3):
        return x
    source, new = input_node(inserted), shape_of(expanded)
    if not same_shape(shape_of(source), (*new[:2], *new[3:])):
        return x
    if not same_shape(shape_of(x), (new[0], new[1] * new[2], *new[3:])):
        return x
    return source


class SdpaAttention(Rule):
    """``scaled_dot_product_attention`` on [batch, heads, seq, size]."""

    name = "attention-sdpa"
    roots = (aten.scaled_dot_product_attention.default,)

    def match(self, root: Node, program: Program) -> Match | Miss:
        a = arguments(root)
        if a["dropout_p"]:
            return Miss("drops attention weights: the module is in train mode", root, NEAR)
        k, v = ungroup(a["key"]), ungroup(a["value"])
        bound = {"q": a["query"], "k": k, "v": v, "mask": a["attn_mask"], "causal": a["is_causal"]}
        size = static_int(shape_of(a["query"])[-1])
        if size is None:
            return Miss("the size of a head is dynamic", root, NEAR)
        bound["scale"] = a["scale"] if a["scale"] is not None else 1 / math.sqrt(size)
        return Match(root, bound, [root, a["key"], a["value"]])

    def check(self, match: Match, program: Program) -> str | None:
        return why_not_attention(self.target, *(value_of(match[name]) for name in ("q", "k", "v")))

    def rewrite(self, match: Match, build: Builder) -> Node:
        q, k, v, mask, scale, causal = (
            match[name] for name in ("q", "k", "v", "mask", "scale", "causal")
        )
        return build_attention(q, k, v, mask, scale, causal, build)


def why_not_attention(target: Target, q: Tensor, k: Tensor, v: Tensor) -> str | None:
    """The condition on the types of q, k and v that fails on a target, in words."""
    for what, value in (("queries", q), ("keys", k), ("values", v)):
        if value.dim() != 4:
            return f"{what} are not [batch, heads, seq, size]"
        if not target.fuses(value.dtype):
            return f"{what} are {value.dtype}"
    heads = [value.shape[1] for value in (q, k, v)]
    if any(isinstance(count, torch.SymInt) for count in heads):
        return "the number of heads is dynamic"
    of_q, of_k, of_v = heads
    if of_k != of_v or of_q % of_k:
        return f"{of_q} query heads do not divide over {of_k} key and {of_v} value heads"
    if not same_size(q.shape[0], k.shape[0]) or not same_shape(k.shape[:-1], v.shape[:-1]):
        return "batch or key sizes differ"
    return None


def build_attention(
    q: Node,
    k: Node,
    v: Node,
    mask: Node | None,
    scale: float,
    causal: bool,
    build: Builder,
    softcap: float = 0.0,
) -> Node:
    """One attention node, on packed heads where q, k and v come from packed heads."""
    q_heads, kv_heads = int(shape_of(q)[1]), int(shape_of(k)[1])
    rest = (mask, q_heads, kv_heads, float(scale), causal, *([softcap] if softcap else []))
    packed = [pack_heads(x, build) for x in (q, k, v)]
    if any(x is None for x in packed):
        return build.call(strop.attention.default, q, k, v, *rest)
    out = build.call(strop.attention.default, *packed, *rest)
    return unpack_heads(out, q_heads, build)
