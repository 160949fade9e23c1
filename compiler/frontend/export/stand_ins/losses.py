"""Losses that check their arguments, or save memory in training."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """Negative logarithm of a normal density; the least variance is ``eps``."""
    if isinstance(var, float):
        var = torch.full_like(input, var)
    if var.dim() < input.dim():
        var = var.unsqueeze(-1)
    var = var.clamp(min=eps)
    loss = 0.5 * (var.log() + (input - target) ** 2 / var)
    if full:
        loss = loss + 0.5 * math.log(2 * math.pi)
    return loss if reduction == "none" else getattr(loss, reduction)()


def linear_cross_entropy(*args: Any, options: Any = None, **named: Any) -> Tensor:
    """In one piece: chunks save memory in training, and change no number."""
    return F.linear_cross_entropy(*args, **named)
