"""Attention, in either of two layouts."""

from __future__ import annotations

import torch
from torch import Tensor

from strop.compiler.lower.triton.layouts import all_heads, dense
from strop.compiler.lower.triton.table import lowers
from strop.compiler.lower.triton.tracer import Tracer
from strop.kernels.attention import attention


@lowers(torch.ops.strop.attention.default)
def _attention(
    on: Tracer,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    q_heads: int,
    kv_heads: int,
    scale: float,
    causal: bool,
    softcap: float,
) -> Tensor:
    packed = q.dim() == 3
    parts = all_heads(on, q, k, v, q_heads, kv_heads)
    seen = None if mask is None else dense(on, mask)
    made: Tensor = on.launch(attention, *parts, seen, scale, causal, packed, softcap)
    return made
