"""Scaled dot-product attention with grouped heads, in either of two layouts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from strop.compiler.ir.dialect.registry import define

HALVES = (torch.float16, torch.bfloat16)
"""Floats of 16 bits, which tensor cores multiply; they sum in 32."""


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[batch, seq, heads*size] -> [batch, heads, seq, size]."""
    rows: Tensor = x.unflatten(-1, (heads, x.shape[-1] // heads))
    return rows.transpose(1, 2)


@define(
    "attention(Tensor q, Tensor k, Tensor v, Tensor? mask, int q_heads, int kv_heads, "
    "float scale, bool causal, float softcap=0.0) -> Tensor"
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
    softcap: float = 0.0,
) -> Tensor:
    """softmax(scale * q k^T + mask) v, each key head serving q_heads/kv_heads query heads.

    q, k, v are packed, [batch, seq, heads*size], or split, [batch, heads, seq, size]; the result
    has q's layout. ``mask`` broadcasts to [batch, q_heads, seq, keys]: bool (True = look at) or
    float (added), of q's dtype or, beside one of 16 bits, float32: -3.4e38 hides a place, and a
    row of nothing else is a mean. ``causal`` hides keys that come after the query, counted from the
    first. Scores x become ``softcap * tanh(x / softcap)`` before they are masked; 0 leaves them.
    Where q is of 16 bits, all but what is multiplied is float32; see ``_written_out``.
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
    if softcap or q.dtype in HALVES:
        out = _written_out(q, k, v, mask, scale, causal, softcap)
    else:
        out = F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal, scale=scale)
    return out.transpose(1, 2).flatten(2) if packed else out


def _written_out(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    scale: float,
    causal: bool,
    softcap: float,
) -> Tensor:
    """Attention of 16 bits as tensor cores compute it, which sum in 32; of wider floats in theirs.

    With s = scale * q k^T + mask and w = e^(s - max s) it is (round(w) v) / sum(w), rounded once:
    weights are rounded to the dtype of v before they are divided by their sum. Kernels that read
    the keys block by block take the largest score so far for max s, and give the same up to that
    rounding. A row that sees no key is 0.
    """
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    scores = q.to(wide) @ k.to(wide).mT * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    if causal:
        ones = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
        scores = scores.masked_fill(~ones, float("-inf"))
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, float("-inf"))
    elif mask is not None:
        scores = scores + mask.to(wide)
    # One score more, so that rows that see no key, or have none, have a largest one.
    top = F.pad(scores, (0, 1), value=torch.finfo(wide).min).amax(-1, keepdim=True)
    weights = (scores - top).exp()
    total = weights.sum(-1, keepdim=True)
    sums = weights.to(v.dtype).to(wide) @ v.to(wide)
    return (sums / torch.where(total == 0, 1.0, total)).to(q.dtype)
