"""Attention of new tokens over a cache of keys and values, which they continue."""

from __future__ import annotations

import torch
from torch import Tensor

from strop.compiler.ir.dialect.attention import split_heads
from strop.compiler.ir.dialect.registry import define


@define(
    "cached_attention(Tensor q, Tensor k, Tensor v, Tensor past_k, Tensor past_v, Tensor mask, "
    "int q_heads, int kv_heads, float scale, float softcap) -> (Tensor, Tensor, Tensor)"
)
def cached_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    past_k: Tensor,
    past_v: Tensor,
    mask: Tensor,
    q_heads: int,
    kv_heads: int,
    scale: float,
    softcap: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """``strop::attention`` over the cache and the new keys and values, and the longer cache.

    q, k, v are those of the new tokens: packed, [batch, seq, heads*size], or split, [batch, heads,
    seq, size]; the first result has q's layout. past_k and past_v: [batch, kv_heads, past, size];
    the other results are these with the new ones behind: [batch, kv_heads, past + seq, size].
    ``mask``: as in ``strop::attention``, [batch, q_heads, seq, past + seq] with broadcasting.
    Scores x become ``softcap * tanh(x / softcap)`` before they are masked; 0 leaves them.
    A row that sees nothing, such as one of padding, gives some finite numbers.
    """
    packed = q.dim() == 3
    if packed:
        q, k, v = split_heads(q, q_heads), split_heads(k, kv_heads), split_heads(v, kv_heads)
    keys, values = torch.cat([past_k, k], 2), torch.cat([past_v, v], 2)
    if softcap:
        out = _capped(q, keys, values, mask, scale, softcap)
    else:
        heads = q_heads, kv_heads
        out = torch.ops.strop.attention(q, keys, values, mask, *heads, scale, False)
    return out.transpose(1, 2).flatten(2) if packed else out, keys, values


def _capped(
    q: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float, softcap: float
) -> Tensor:
    """Attention on split heads whose scores are bounded by a tanh."""
    groups = q.shape[1] // keys.shape[1]
    keys, values = (x.repeat_interleave(groups, dim=1) for x in (keys, values))
    scores = softcap * torch.tanh(q @ keys.transpose(2, 3) * (scale / softcap))
    if mask.dtype == torch.bool:
        # Finite, so that a row that sees nothing is a mean and its gradient no NaN.
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    else:
        scores = scores + mask
    return scores.softmax(-1) @ values
