"""Sums of embeddings with the norm behind them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from strop.compiler.lower.triton.layouts import flat, with_axes
from strop.compiler.lower.triton.table import lowers
from strop.compiler.lower.triton.tracer import Tracer
from strop.kernels.embedding_norm import embedding_norm


@lowers(torch.ops.strop.embedding_norm.default)
def _embedding_norm(
    on: Tracer,
    indices: Sequence[Tensor],
    tables: Sequence[Tensor],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    rms: bool,
) -> Tensor:
    places = [flat(on, i) for i in indices]
    y = on.launch(embedding_norm, places, list(tables), weight, bias, eps, rms=rms)
    return with_axes(on, y, indices[0].shape)
