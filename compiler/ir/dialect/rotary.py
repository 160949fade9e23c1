"""Rotary position embedding (Su et al., 2021, arXiv:2104.09864), half-rotated form."""

from __future__ import annotations

import torch
from torch import Tensor

from strop.compiler.ir.dialect.attention import HALVES, split_heads
from strop.compiler.ir.dialect.registry import define


@define("rotary(Tensor x, Tensor cos, Tensor sin, int heads) -> Tensor")
def rotary(x: Tensor, cos: Tensor, sin: Tensor, heads: int) -> Tensor:
    """Rotate the first ``2*half`` channels of every head; the others pass through.

    x is packed, [batch, seq, heads*size], or split, [batch, heads, seq, size]; cos and sin are
    [batch or 1, seq, half]. With (a, b) the halves of the rotated channels the result is
    (a cos - b sin, b cos + a sin), computed in float32 and rounded once, as kernels do.
    """
    dtype, x, cos, sin = x.dtype, _wide(x), _wide(cos), _wide(sin)
    packed = x.dim() == 3
    if packed:
        x = split_heads(x, heads)
    half = cos.shape[-1]
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    a, b, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    out = torch.cat([a * cos - b * sin, b * cos + a * sin, rest], dim=-1)
    out = out.to(dtype)
    return out.transpose(1, 2).flatten(2) if packed else out


def _wide(x: Tensor) -> Tensor:
    """Values of 16 bits in float32; others as they are."""
    return x.float() if x.dtype in HALVES else x
