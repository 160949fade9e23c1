"""Sums of embeddings with the norm behind them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add

import torch.nn.functional as F
from torch import Tensor

from strop.compiler.ir.dialect.kernels.norm import normed
from strop.compiler.ir.dialect.registry import define


@define(
    "embedding_norm(Tensor[] indices, Tensor[] tables, Tensor? weight, Tensor? bias, float eps, "
    "bool rms) -> Tensor"
)
def embedding_norm(
    indices: Sequence[Tensor],
    tables: Sequence[Tensor],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    rms: bool,
) -> Tensor:
    """norm(tables[0][indices[0]] + tables[1][indices[1]] + ...) in float32, rounded once.

    indices: one to three of one shape [...], int64; tables: as many, [rows, size] of one float
    dtype; weight, bias: [size] float; result: [..., size] like the tables. The norm is RMSNorm,
    without a bias, or LayerNorm.
    """
    rows = [F.embedding(i, table).float() for i, table in zip(indices, tables, strict=True)]
    return normed(reduce(add, rows), weight, bias, eps, rms).to(tables[0].dtype)
