"""Residual sum followed by a norm."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from strop.compiler.ir.dialect.registry import define


@define(
    "skip_layer_norm(Tensor x, Tensor skip, Tensor? weight, Tensor? bias, float eps) "
    "-> (Tensor, Tensor)"
)
def skip_layer_norm(
    x: Tensor, skip: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """(LayerNorm(x + skip), x + skip) over the last axis; x and skip have one shape."""
    total = x + skip
    return F.layer_norm(total, (total.shape[-1],), weight, bias, eps), total


@define("skip_rms_norm(Tensor x, Tensor skip, Tensor? weight, float eps) -> (Tensor, Tensor)")
def skip_rms_norm(
    x: Tensor, skip: Tensor, weight: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """(RMSNorm(x + skip), x + skip) over the last axis; x and skip have one shape."""
    total = x + skip
    return F.rms_norm(total, (total.shape[-1],), weight, eps), total
