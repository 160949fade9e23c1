"""Attention of new tokens to a cache that ends with theirs: by the kernel for one, or for many."""

from __future__ import annotations

from torch import Tensor

from strop.kernels import buffers
from strop.kernels.attention import launch_attention
from strop.kernels.decode_attention import launch_decode
from strop.kernels.launching import either


def cached_attention(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    mask: Tensor,
    scale: float,
    packed: bool,
    softcap: float = 0.0,
) -> Tensor:
    """softmax(scale * q k^T + mask) v, where one query is as frequent as many.

    Args:
        q: [batch, heads, queries, size] float16, bfloat16 or float32; its last stride is 1, as
            those of the caches. The size is at most 256, of float32 128.
        k_cache: [batch, kv_heads, keys, size] in the same dtype; kv_heads divides heads, and a key
            head serves heads / kv_heads query heads that follow each other.
        v_cache: the same shape and dtype.
        mask: broadcast to [batch, heads, queries, keys], its last stride 1: bool (True = look at),
            or float, added to the scaled scores; finite numbers below -1e30 count as -1e30.
        scale: what q k^T is multiplied by; above 0.
        packed: the layout of the result.
        softcap: scaled scores x become ``softcap * tanh(x / softcap)`` before the mask is added;
            0 leaves them.

    Returns:
        [batch, heads, queries, size], or packed [batch, queries, heads * size]. Queries from which
        every key is hidden, by False or by -inf, give zeros.

    Raises:
        ValueError: the head size or the scale is out of range, or the mask's last stride is not 1.
    """
    batch, heads, queries, size = q.shape
    # Of one query both layouts are the same numbers in the same places.
    out = buffers.empty(q, (batch, queries, heads, size) if packed else q.shape)
    split = out.transpose(1, 2) if packed else out
    either(
        "queries == 1",
        {"queries": queries},
        lambda: launch_decode(q, k_cache, v_cache, None, mask, out, scale, softcap),
        lambda: launch_attention(q, k_cache, v_cache, mask, split, scale, False, softcap),
    )
    return out.flatten(2) if packed else out
