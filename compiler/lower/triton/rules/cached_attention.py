"""Attention over a cache that it continues."""

from __future__ import annotations

import torch
from torch import Tensor

from strop.compiler.lower.triton.layouts import all_heads, dense
from strop.compiler.lower.triton.table import lowers
from strop.compiler.lower.triton.tracer import Tracer
from strop.kernels.cached_attention import cached_attention

aten = torch.ops.aten


@lowers(torch.ops.strop.cached_attention.default)
def _cached_attention(
    on: Tracer,
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
    k_scale: Tensor | None,
    v_scale: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    packed = q.dim() == 3
    q, k, v = all_heads(on, q, k, v, q_heads, kv_heads)
    keys, values = (
        on.call(aten.cat.default, [past, new], 2) for past, new in ((past_k, k), (past_v, v))
    )
    out = on.launch(cached_attention, q, keys, values, dense(on, mask), scale, packed, softcap)
    return out, keys, values
