"""AWQ: channels with large activations get larger weights, whose rounding errs less."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from strop.passes.quantize.methods.layer import Chosen, Layer, Settings
from strop.passes.quantize.methods.squared_error import least_error

# Exponents that are tried; 0 leaves all as it is.
_ALPHAS = tuple(step / 20 for step in range(20))
_LEAST = 1e-4


def awq(layer: Layer, settings: Settings) -> Chosen:
    """Scales of a layer whose channels were scaled: values are cut off where outputs err less.

    Lin et al., AWQ: Activation-aware Weight Quantization (2024), the clipping of weights: the error
    is that of outputs in which each group errs alone.
    """
    return Chosen(*least_error(layer, layer.blocks()))


def channel_scale(readers: Sequence[tuple[Layer, Tensor]], channels: int) -> Tensor | None:
    """The scale of channels with the least error of the outputs of the layers that read them.

    Lin et al. (2024), equation 4: ||Q(W diag(s)) diag(s)^-1 X - W X|| with s = s_X^alpha, where
    s_X is the size of activations, here their root mean square, and alpha is searched for; s is
    divided by sqrt(max s min s).

    Args:
        readers: layers with moments, and the channel of each of their inputs, int64 [in].
        channels: how many there are.

    Returns:
        [channels] float64, above 0; None where no scale is better than none.
    """
    size = _size(readers, channels)
    best, least = None, torch.inf
    for alpha in _ALPHAS:
        scale = size**alpha
        scale = scale / (scale.max() * scale.min()).sqrt()
        error = sum(_error(layer, scale[channel]) for layer, channel in readers)
        if error < least:
            best, least = (scale if alpha else None), error
    return best


def scaled(layer: Layer, scale: Tensor) -> Layer:
    """A layer whose input channels were divided by a scale, [in], and its weight multiplied."""
    assert layer.moments is not None
    weight = (layer.weight.double() * scale).float()
    return replace(layer, weight=weight, moments=layer.moments.divided_by(scale))


def _size(readers: Sequence[tuple[Layer, Tensor]], channels: int) -> Tensor:
    """The root mean square of each channel, as a share of their mean."""
    total, count = torch.zeros(2, channels, dtype=torch.float64)
    for layer, channel in readers:
        assert layer.moments is not None
        total.index_add_(0, channel, layer.moments.mean().diagonal())
        count.index_add_(0, channel, torch.ones(len(channel), dtype=torch.float64))
    size = (total / count.clamp(min=1)).sqrt()
    relative: Tensor = size / size.mean().clamp(min=1e-30)
    return relative.clamp(min=_LEAST)


def _error(layer: Layer, scale: Tensor) -> float:
    """What rounding costs at the outputs, with scaled channels."""
    moved = scaled(layer, scale)
    assert moved.moments is not None
    rounded = moved.rounded(moved.weight, *moved.covering())
    return float(moved.moments.error(rounded - moved.weight))
