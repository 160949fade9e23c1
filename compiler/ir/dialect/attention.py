"""Scaled dot-product attention with grouped heads, in either of two layouts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from strop.compiler.ir.dialect.registry import define


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[batch, seq, heads*size] -> [batch, heads, seq, size]."""
    rows: Tensor = x.unflatten(-1, (heads, x.shape[-1] // heads))
    return rows.transpose(1, 2)


@define(
    "attention(Tensor q, Tensor k, Tensor v, Tensor? mask, int q_heads, int kv_heads, "
    "float scale, bool causal) -> Tensor"
)
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    q_heads: int,
    kv_heads: int,
    scale: float,
    causal: bool,
) -> Tensor:
    """softmax(scale * q k^T + mask) v, each key head serving q_heads/kv_heads query heads.

    q, k, v are packed, [batch, seq, heads*size], or split, [batch, heads, seq, size]; the result
    has q's layout. ``mask`` broadcasts to [batch, q_heads, seq, keys]: bool (True = look at) or
    float (added), of q's dtype or, beside one of 16 bits, float32: -3.4e38 hides a place, and a
    row of nothing else is a mean. ``causal`` hides keys that come after the query, counted from the
    first.
    """
    packed = q.dim() == 3
    if packed:
        q, k, v = split_heads(q, q_heads), split_heads(k, kv_heads), split_heads(v, kv_heads)
    if causal and mask is not None:
        ones = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
        mask = mask & ones if mask.dtype == torch.bool else mask.masked_fill(~ones, float("-inf"))
        causal = False
    if kv_heads != q_heads:
        k = k.repeat_interleave(q_heads // kv_heads, dim=1)
        v = v.repeat_interleave(q_heads // kv_heads, dim=1)
    out = F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal, scale=scale)
    return out.transpose(1, 2).flatten(2) if packed else out
