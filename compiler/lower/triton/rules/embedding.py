"""Embeddings, and sums of them with the norm behind."""

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


@lowers(torch.ops.aten.embedding.default)
def _embedding(
    on: Tracer, table: Tensor, indices: Tensor, padding: int, scaled: bool, sparse: bool
) -> Tensor:
    """One table and no norm; the other arguments are for gradients."""
    rows = on.launch(
        embedding_norm, [flat(on, indices)], [table], None, None, 0.0, rms=True, norm=False
    )
    return with_axes(on, rows, indices.shape)
