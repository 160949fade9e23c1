"""Embedding tables kept in int8."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from strop.compiler.ir.dialect.linear import fake_int8
from strop.compiler.ir.dialect.registry import define


@define(
    "embedding_int8(Tensor weight, Tensor scale, Tensor indices) -> Tensor",
    stored={"weight": torch.int8},
)
def embedding_int8(weight: Tensor, scale: Tensor, indices: Tensor) -> Tensor:
    """Rows of a table rounded to int8, each row with its own scale.

    weight: [rows, size] float; scale: [rows] float; indices: [...] int; result: [..., size].
    """
    return F.embedding(indices, fake_int8(weight, scale))
