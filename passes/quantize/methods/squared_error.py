"""Scales that cut off the ends of a group where that makes its squared error smaller."""

from __future__ import annotations

import torch
from torch import Tensor

from strop.passes.quantize.methods.layer import Chosen, Layer, Settings

# Shares of the range that are tried; what lies beyond is cut off.
_SHARES = tuple(share / 100 for share in range(100, 38, -2))


def squared_error(layer: Layer, settings: Settings) -> Chosen:
    """The scale of each group with the least ||w - Q(w)||^2.

    The search over shares of the range is that of Nagel et al., A White Paper on Neural Network
    Quantization (2021), section 3.1 (MSE), group by group.
    """
    return Chosen(*least_error(layer))


def least_error(layer: Layer, blocks: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Scales and zero points with the least d^T B d of each group, d = w - Q(w).

    Args:
        layer: whose weight is rounded.
        blocks: B, [groups, size, size] float32; by default the identity.
    """
    widest, zero = layer.covering()
    best, least = widest, torch.full_like(widest, torch.inf)
    for share in _SHARES:
        scale = widest * share
        off = (layer.weight - layer.rounded(layer.weight, scale, zero)).unflatten(
            1, (layer.groups, -1)
        )
        moved = off if blocks is None else (off.transpose(0, 1) @ blocks).transpose(0, 1)
        total = (moved * off).sum(2)
        best = torch.where(total < least, scale, best)
        least = torch.minimum(least, total)
    return best, zero
