"""Rotary position embedding."""

from __future__ import annotations

import torch
from torch import Tensor

from strop.compiler.lower.triton.layouts import dense, split_heads
from strop.compiler.lower.triton.table import lowers
from strop.compiler.lower.triton.tracer import Tracer
from strop.kernels.rotary import rotary


@lowers(torch.ops.strop.rotary.default)
def _rotary(on: Tracer, x: Tensor, cos: Tensor, sin: Tensor, heads: int) -> Tensor:
    packed = x.dim() == 3
    split = split_heads(on, x, heads) if packed else dense(on, x)
    rotated: Tensor = on.launch(rotary, split, dense(on, cos), dense(on, sin), packed)
    return rotated
