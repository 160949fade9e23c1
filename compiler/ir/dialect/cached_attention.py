"""Attention of new tokens over a cache of keys and values, which they continue."""

from __future__ import annotations

import torch
from torch import Tensor

from strop.compiler.ir.dialect.attention import split_heads
from strop.compiler.ir.dialect.registry import define


def cache_int8(x: Tensor, scale: Tensor) -> Tensor:
    """clamp(round(x / scale), -128, 127), ties to even: int8.

    x: keys or values, [batch, heads, places, size] float; scale: above 0, [1, heads, 1, size].
    """
    return (x / scale).round().clamp(-128, 127).to(torch.int8)


@define(
    "cached_attention(Tensor q, Tensor k, Tensor v, Tensor past_k, Tensor past_v, Tensor mask, "
    "int q_heads, int kv_heads, float scale, float softcap, Tensor? k_scale=None, "
    "Tensor? v_scale=None) -> (Tensor, Tensor, Tensor)"
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
    k_scale: Tensor | None = None,
    v_scale: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """``strop::attention`` over the cache and the new keys and values, and the longer cache.

    q, k, v are those of the new tokens: packed, [batch, seq, heads*size], or split, [batch, heads,
    seq, size]; the first result has q's layout. past_k and past_v: [batch, kv_heads, past, size];
    the other results are these with the new ones behind: [batch, kv_heads, past + seq, size].
    ``mask``: as in ``strop::attention``, [batch, q_heads, seq, past + seq] with broadcasting.
    Scores x become ``softcap * tanh(x / softcap)`` before they are masked; 0 leaves them.
    A row that sees nothing, such as one of padding, gives some finite numbers.

    With scales, [1, kv_heads, 1, size] float above 0, caches are int8, as of ``cache_int8``: the
    new keys and values are rounded, too, before they are seen. Gradients pass straight through.
    """
    packed = q.dim() == 3
    if packed:
        q, k, v = split_heads(q, q_heads), split_heads(k, kv_heads), split_heads(v, kv_heads)
    keys, present_k = _continued(past_k, k, k_scale)
    values, present_v = _continued(past_v, v, v_scale)
    heads = q_heads, kv_heads
    out = torch.ops.strop.attention(q, keys, values, mask, *heads, scale, False, softcap)
    return out.transpose(1, 2).flatten(2) if packed else out, present_k, present_v


def _continued(past: Tensor, new: Tensor, scale: Tensor | None) -> tuple[Tensor, Tensor]:
    """A cache with new keys or values behind it: as attention sees it, and as it is kept."""
    if scale is None:
        whole = torch.cat([past, new], 2)
        return whole, whole
    kept = cache_int8(new.detach(), scale)
    seen = new + (kept * scale - new.detach())
    return torch.cat([past * scale, seen], 2), torch.cat([past, kept], 2)
