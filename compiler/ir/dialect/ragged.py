"""Attention over sequences of several lengths that lie in one row, one after another."""

from __future__ import annotations

import torch
from torch import Tensor

from strop.compiler.ir.dialect.attention import attention
from strop.compiler.ir.dialect.registry import define


@define(
    "ragged_attention(Tensor q, Tensor k, Tensor v, Tensor mask, Tensor kept, Tensor rows, "
    "Tensor places, int q_heads, int kv_heads, float scale, bool causal) -> Tensor"
)
def ragged_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor,
    kept: Tensor,
    rows: Tensor,
    places: Tensor,
    q_heads: int,
    kv_heads: int,
    scale: float,
    causal: bool,
) -> Tensor:
    """``strop::attention`` of each sequence with itself.

    Args:
        q: [1, rows, q_heads*size], the rows of the first sequence, then those of the next.
        k: [1, rows, kv_heads*size].
        v: likewise.
        mask: [rows]: bool (True = queries look at this row) or float (added to its scores).
        kept: bool [batch, seq], the positions that are rows; at least one of each sequence.
        rows: int64 [rows], the number of each in batch * seq.
        places: int64 [batch * seq], by position its row; some other row for those that are none.
        q_heads: number of heads of the queries.
        kv_heads: number of heads of keys and values.
        scale: of the scores.
        causal: hides rows that come after the query.

    Returns:
        [1, rows, q_heads*size].
    """
    batch, seq = kept.shape
    q, k, v = (x[0].index_select(0, places).unflatten(0, (batch, seq)) for x in (q, k, v))
    seen = mask.index_select(0, places).view(batch, 1, 1, seq)
    here = kept.view(batch, 1, 1, seq)
    if mask.dtype == torch.bool:
        seen = seen & here
    else:
        seen = seen.masked_fill(~here, torch.finfo(mask.dtype).min)
    out: Tensor = attention(q, k, v, seen, q_heads, kv_heads, scale, causal)
    return out.flatten(0, 1).index_select(0, rows).unsqueeze(0)
