"""Softmax of rows."""

from __future__ import annotations

import torch
from torch import Tensor

from strop.compiler.lower.triton.layouts import like, rows
from strop.compiler.lower.triton.refusal import NotLowered
from strop.compiler.lower.triton.table import lowers
from strop.compiler.lower.triton.tracer import Tracer
from strop.kernels.softmax import softmax


@lowers(torch.ops.aten.softmax.int)
def _softmax(on: Tracer, x: Tensor, dim: int, dtype: torch.dtype | None) -> Tensor:
    if not x.dim() or dim % x.dim() != x.dim() - 1:
        raise NotLowered("the softmax kernel takes the last axis")
    if isinstance(x.shape[-1], torch.SymInt):
        raise NotLowered("the softmax kernel is compiled for rows of a fixed size")
    if dtype not in (None, x.dtype):
        raise NotLowered("the softmax kernel gives the dtype that it takes")
    return like(on, on.launch(softmax, rows(on, x)), x)
