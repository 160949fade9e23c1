"""Scales that take outlier channels out of activations, and the search for the best of them.

Xiao et al., SmoothQuant (2023, arXiv:2211.10438): dividing channel c of a layer's input by
``s_c = max|x_c|^alpha / max|w_c|^(1 - alpha)`` and multiplying that column of the weight by it
moves the difficulty of quantizing from activations to weights. Here only outliers are scaled: ``s``
is divided by one of its own quantiles, and is never below 1. A channel that the data hardly uses
would otherwise be amplified, and values beyond those of the data would decide the range of all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from strop.compiler.ir.dialect.linear import fake_int8, int8_scale
from strop.passes.quantize.channels import Channels
from strop.passes.quantize.grid import Grid

ALPHAS = (0.5, 0.7, 0.8, 0.9, 1.0)
# Shares of the channels that are not scaled.
QUANTILES = (0.5, 0.9, 0.99)
# So many outputs of a layer are enough to compare scales: each has its own row of the weight.
_OUTPUTS = 512
_ACTIVATIONS = Grid(8, symmetric=False)


@dataclass(frozen=True)
class Layer:
    """A linear layer that reads scaled values.

    Attributes:
        weight: float [out, in].
        inputs: what it reads.
        channel: the scale that each of its inputs takes; int64 [in].
    """

    weight: Tensor
    inputs: Channels
    channel: Tensor

    @staticmethod
    def of(weight: Tensor, inputs: Channels, channel: Tensor) -> Layer:
        """A layer of which only some outputs, evenly spread, are looked at."""
        return Layer(weight[:: max(1, len(weight) // _OUTPUTS)], inputs, channel)

    def error(self, scale: Tensor) -> float:
        """The error of its output with int8 weights and activations at a scale.

        The mean over rows of the square of the error as a share of the square of the row, so that
        rows with massive values count no more than others.

        Args:
            scale: above 0; [channels].
        """
        own = scale[self.channel]
        low, high = (self.inputs.low / own).amin(), (self.inputs.high / own).amax()
        step, zero = _ACTIVATIONS.parameters(low, high)
        grid = (self.inputs.rows / own / step).round() + zero
        rounded = (grid.clamp(_ACTIVATIONS.low, _ACTIVATIONS.high) - zero) * step
        scaled = self.weight * own
        want = F.linear(self.inputs.rows, self.weight)
        got = F.linear(rounded, fake_int8(scaled, int8_scale(scaled)))
        size = want.square().sum(-1)
        share = (got - want).square().sum(-1) / size
        return float(share[size > 0].mean()) if bool((size > 0).any()) else 0.0


@dataclass(frozen=True)
class Found:
    """The best scale.

    Attributes:
        scale: float [channels]; all 1 where none is better than that.
        alpha: of which exponent; 0 for none.
        before: the error without a scale, summed over layers.
        after: with it.
    """

    scale: Tensor
    alpha: float
    before: float
    after: float


def best_scale(layers: Sequence[Layer], channels: int, alphas: Sequence[float]) -> Found:
    """The scale with the least error, of those that alphas and quantiles give.

    Args:
        layers: that share the scale.
        channels: its length.
        alphas: from 0 to 1.
    """
    scale = torch.ones(channels)
    before = after = sum(layer.error(scale) for layer in layers)
    best = 0.0
    for alpha, candidate in _candidates(layers, channels, alphas):
        error = sum(layer.error(candidate) for layer in layers)
        if error < after:
            scale, best, after = candidate, alpha, error
    return Found(scale, best, before, after)


def _candidates(
    layers: Sequence[Layer], channels: int, alphas: Sequence[float]
) -> Iterator[tuple[float, Tensor]]:
    inputs, columns = torch.zeros(channels), torch.zeros(channels)
    for layer in layers:
        inputs = inputs.scatter_reduce(0, layer.channel, layer.inputs.top.float(), "amax")
        widths = layer.weight.abs().amax(0).float()
        columns = columns.scatter_reduce(0, layer.channel, widths, "amax")
    used = (inputs > 0) & (columns > 0)
    if not bool(used.any()):
        return
    for alpha in alphas:
        ratio = inputs[used] ** alpha / columns[used] ** (1 - alpha)
        for share in QUANTILES:
            scale = torch.ones(channels)
            scale[used] = (ratio / ratio.quantile(share)).clamp(min=1)
            yield alpha, scale
