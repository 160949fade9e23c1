"""Attention over a cache that the model continues becomes ``strop::cached_attention``."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.cache_masks import cache_mask_of
from strop.compiler.ir.nodes import arg, arguments, shape_of
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.passes import RulePass
from strop.compiler.rewriting.pattern import NEAR, Match, Miss
from strop.compiler.rewriting.rules import Rule
from strop.passes.fuse.layout import pack_heads, unpack_heads

aten = torch.ops.aten
strop = torch.ops.strop


class CachedAttention(Rule):
    """``attention(q, cat([past_k, k], 2), cat([past_v, v], 2), mask)`` with both cats returned."""

    name = "cached-attention"
    roots = (strop.attention.default,)

    def match(self, root: Node, program: Program) -> Match | Miss:
        a = arguments(root)
        bound = {name: a[name] for name in ("q", "q_heads", "kv_heads", "scale", "softcap")}
        bound["mask"] = None if a["mask"] is None else cache_mask_of(a["mask"]) or a["mask"]
        for name in ("k", "v"):
            longer = a[name]
            if reason := _why_no_cache(longer, root, program):
                # Attention without any cache is no near miss.
                return Miss(reason, longer, NEAR if _reads_input(longer) else 0)
            past, new = arg(longer, 0)
            bound |= {name: new, f"past_{name}": past, f"present_{name}": longer}
        return Match(root, bound, [a["k"], a["v"]])

    def check(self, match: Match, program: Program) -> str | None:
        if not self.target.caches:
            return f"{self.target.name} has no attention over a cache"
        if arguments(match.root)["causal"]:
            return "keys are hidden that come after the query, counted from the first of the cache"
        if match["mask"] is None:
            return "it has no mask, which says how long the cache is"
        if match["present_k"] is match["present_v"]:
            return "keys and values are one cache"
        return None

    def rewrite(self, match: Match, build: Builder) -> Node:
        new = [match[name] for name in ("q", "k", "v")]
        packed = [pack_heads(x, build) for x in new]
        whole = all(x is not None for x in packed)
        kept = ("past_k", "past_v", "mask", "q_heads", "kv_heads", "scale", "softcap")
        rest = (match[name] for name in kept)
        made = build.call(strop.cached_attention.default, *(packed if whole else new), *rest)
        out, keys, values = (build.call(operator.getitem, made, i) for i in range(3))
        match["present_k"].replace_all_uses_with(keys)
        match["present_v"].replace_all_uses_with(values)
        return unpack_heads(out, match["q_heads"], build) if whole else out


def _reads_input(longer: Node) -> bool:
    return longer.target is aten.cat.default and any(
        part.op == "placeholder" for part in arg(longer, 0)
    )


def _why_no_cache(longer: Node, root: Node, program: Program) -> str | None:
    """Why keys or values of attention are no cache that the model continues, or None."""
    if not _reads_input(longer):
        return "keys or values are no input with new ones behind it"
    parts, axis = arg(longer, 0), arguments(longer)["dim"]
    if len(parts) != 2 or parts[0].op != "placeholder" or len(shape_of(longer)) != 4:
        return "it is no [batch, heads, past, size] input with new ones behind it"
    if axis not in (2, -2):
        return "new keys or values are joined along another axis than places"
    if longer not in program.outputs:
        return "the longer cache is no output"
    if program.outputs.count(longer) > 1:
        return "the longer cache is an output more than once"
    end = program.graph.output_node()
    # How long it is, the mask says, too.
    readers = [u for u in (*longer.users, *parts[0].users) if u.target is not aten.sym_size.int]
    others = [u for u in readers if u not in (root, end, longer)]
    if others:
        return f"the cache is also read by %{others[0].name}"
    if parts[0] in program.outputs:
        return "the cache is also returned as it was given"
    return None


@dataclass(frozen=True)
class FuseCachedAttention(RulePass):
    """Make one node of attention and the cache that it reads and continues."""

    name = "cached-attention"
    after = ("attention",)

    def rules(self) -> Sequence[Rule]:
        return (CachedAttention(),)
