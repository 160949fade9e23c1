"""Covariances and correlations."""

from __future__ import annotations

import torch
from torch import Tensor


def cov(
    input: Tensor,
    *,
    correction: int = 1,
    fweights: Tensor | None = None,
    aweights: Tensor | None = None,
) -> Tensor:
    """[variables, observations], or one variable -> covariances of every two variables."""
    rows = input.view(1, -1) if input.dim() < 2 else input
    weight = torch.ones(rows.shape[1], dtype=torch.int64, device=rows.device)
    for given in (fweights, aweights):
        weight = weight if given is None else weight * given
    total = weight.sum()
    centred = rows - ((rows * weight).sum(1) / total).unsqueeze(1)
    lost = correction if aweights is None else correction * (weight * aweights).sum() / total
    product = centred.mm((centred * weight).t())
    return (product / (total - lost).clamp(min=0)).squeeze()


def corrcoef(input: Tensor) -> Tensor:
    """Covariances over standard deviations, from -1 to 1."""
    covariance = cov(input)
    if covariance.dim() == 0:
        return covariance / covariance
    deviation = covariance.diag().sqrt()
    return (covariance / deviation.view(-1, 1) / deviation.view(1, -1)).clip(-1, 1)
