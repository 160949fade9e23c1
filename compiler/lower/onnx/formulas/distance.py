"""Distances between vectors."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from strop.compiler.lower.onnx.formulas.registry import formula

aten = torch.ops.aten


@formula(aten._cdist_forward.default)
def cdist(a: Tensor, b: Tensor, p: float, compute_mode: int | None) -> Tensor:
    """Between every row of one matrix and every row of another; batches are broadcast."""
    return _norm(a.unsqueeze(-2) - b.unsqueeze(-3), p)


@formula(aten._euclidean_dist.default)
def euclidean(a: Tensor, b: Tensor) -> Tensor:
    """The same for p = 2, without the cancellation of ``a² + b² - 2ab``."""
    return _norm(a.unsqueeze(-2) - b.unsqueeze(-3), 2.0)


@formula(aten._pdist_forward.default)
def pdist(x: Tensor, p: float = 2.0) -> Tensor:
    """Between every two rows of one matrix."""
    rows = int(x.shape[0])
    first, second = torch.triu_indices(rows, rows, 1).unbind()
    return _norm(x.index_select(0, first) - x.index_select(0, second), p)


def _norm(difference: Tensor, p: float) -> Tensor:
    size = difference.abs()
    if p == 0:
        return (size != 0).to(size.dtype).sum(-1)
    if p == 1:
        return size.sum(-1)
    if p == 2:
        return (size * size).sum(-1).sqrt()
    if math.isinf(p):
        return size.amax(-1)
    return size.pow(p).sum(-1).pow(1 / p)
