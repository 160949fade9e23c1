"""Attention: heads are paired across queries, keys and values; groups of them under GQA."""

from __future__ import annotations

import math

import torch

from strop.passes.prune.axes import Axes, Call
from strop.passes.prune.dims import leaf, product
from strop.passes.prune.roles import COPIES, HEAD_SIZE, HEADS, mark
from strop.passes.prune.rules.pointwise import broadcast
from strop.passes.prune.rules.registry import rule

aten = torch.ops.aten


@rule(aten.scaled_dot_product_attention.default)
def attention(call: Call) -> list[Axes]:
    """q [..., heads, l, d], k [..., groups, s, d], v [..., groups, s, e], mask [..., heads, l, s].

    The scale, where none is given, follows from the size of a head; one that becomes smaller must
    not change it.
    """
    q, k, v = (call.axes(name) for name in ("query", "key", "value"))
    call.tie(q[-1], k[-1])
    call.tie(k[-2], v[-2])
    mark(HEAD_SIZE, q[-1], v[-1])
    for name in ("query", "key", "value"):
        if len(call.axes(name)) > 2:
            mark(HEADS, call.axes(name)[-3])
    made = [*_batch_and_heads(call, q, k, v), q[-2], v[-1]]
    if call.given["attn_mask"] is not None:
        broadcast(call, [*made[:-1], k[-2]], call.axes("attn_mask"))
        if call.given["is_causal"]:
            call.freeze("torch takes a mask beside is_causal at equal sizes only", [q[-1], v[-1]])
    if call.given["scale"] is None and isinstance(q[-1].size, int):
        scale = 1 / math.sqrt(q[-1].size)
        call.bake("scale", [q[-1]], lambda new: scale)
    return [made]


def _batch_and_heads(call: Call, q: Axes, k: Axes, v: Axes) -> Axes:
    """The axes before the last two; with GQA, q has the heads of a group one after another."""
    if not call.given.get("enable_gqa") or len(q) < 3 or q[-3].size == k[-3].size:
        return broadcast(call, q[:-2], k[:-2], v[:-2])
    many, few = q[-3].size, k[-3].size
    call.tie(k[-3], v[-3])
    if not (isinstance(many, int) and isinstance(few, int)):
        call.freeze("it counts heads by a dynamic size", [q[-3], k[-3]])
    else:
        queries = leaf(many // few)
        mark(COPIES, queries)
        call.tie(q[-3], product([k[-3], queries]))
    return [*broadcast(call, q[:-3], k[:-3], v[:-3]), q[-3]]
