"""Half-quadratic quantization: grids that fit most values, by an error that forgives outliers."""

from __future__ import annotations

import torch
from torch import Tensor

from strop.passes.quantize.methods.layer import Chosen, Layer, Settings
from strop.passes.quantize.methods.squared_error import least_error

_NORM, _BETA, _GROWTH, _STEPS = 0.7, 10.0, 1.01, 20


def hqq(layer: Layer, settings: Settings) -> Chosen:
    """Grids with a small ||W - Q(W)||_p, p = 0.7, without data.

    Badri and Shaji, Half-Quadratic Quantization of Large Machine Learning Models (2023): in turn
    the error E is shrunk, E <- sign(R) max(|R| - |R|^(p-1) / beta, 0) of R = W - Q(W), and the
    grid is fitted to W - E. There zero points are real numbers and scales stay; here zero points
    are whole numbers, as kernels take them, so the scale is fitted as well, by least squares. It
    starts from the scales of least squared error; a group keeps the best grid that it came by.
    """
    scale, zero = least_error(layer)
    best_scale, best_zero = scale, zero
    least = torch.full_like(scale, torch.inf)
    beta = _BETA
    for _ in range(_STEPS):
        rest = layer.weight - layer.rounded(layer.weight, scale, zero)
        error = rest.abs().pow(_NORM).unflatten(1, (layer.groups, -1)).sum(2)
        better = error < least
        least = torch.minimum(least, error)
        best_scale = torch.where(better, scale, best_scale)
        if zero is not None and best_zero is not None:
            best_zero = torch.where(better, zero, best_zero)
        scale, zero = _fitted(layer, layer.weight - _shrunk(rest, beta), scale, zero)
        beta *= _GROWTH
    return Chosen(best_scale, best_zero)


def _shrunk(rest: Tensor, beta: float) -> Tensor:
    """What of the error is taken for an outlier's: the generalized soft threshold of l_p."""
    size = rest.abs()
    threshold = size.clamp(min=1e-8).pow(_NORM - 1) / beta
    return rest.sign() * (size - threshold).clamp(min=0)


def _fitted(
    layer: Layer, wanted: Tensor, scale: Tensor, zero: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """The zero points and scales that fit a weight, for the whole numbers as they are."""
    whole = torch.ops.strop.whole_numbers(layer.weight, scale, zero, layer.bits)
    whole = whole.unflatten(1, (layer.groups, -1)).float()
    parts = wanted.unflatten(1, (layer.groups, -1))
    middle = torch.full_like(scale, 1 << (layer.bits - 1))
    if zero is not None:
        middle = (whole - parts / scale[:, :, None]).mean(2).round()
        middle = middle.clamp(0, (1 << layer.bits) - 1)
        zero = middle.to(torch.int32)
    steps = whole - middle[:, :, None]
    found = (steps * parts).sum(2) / steps.square().sum(2).clamp(min=1)
    return torch.where(found * scale > 0, found, scale), zero
