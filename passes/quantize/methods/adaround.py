"""AdaRound: which way each value is rounded, learned for the outputs of its layer."""

from __future__ import annotations

import torch
from torch import Tensor

from strop.passes.quantize.methods.layer import Chosen, Layer, Settings
from strop.passes.quantize.methods.squared_error import least_error

# How far the sigmoid is stretched beyond 0 and 1, the exponents of the regularizer at its beginning
# and at the end, and the share of the steps before it: as in the paper.
_STRETCH, _EXPONENTS, _WARM_UP = 0.1, (20.0, 2.0), 0.2
# The error counts as a share of that of rounding to nearest, the regularizer as a mean.
_REGULAR = 10.0
_RATE = 3e-2


def adaround(layer: Layer, settings: Settings) -> Chosen:
    """Whole numbers with a small squared error of the outputs on the data.

    Nagel et al., Up or Down? Adaptive Rounding for Post-Training Quantization (2020), equations 21
    to 25: Q(w) = s clamp(floor(w / s) + h(v) + z, 0, 2^bits - 1) with h(v) = clamp(1.2 sigmoid(v)
    - 0.1, 0, 1), which begins at what w is above its floor. Adam makes small the error of the
    layer, tr((W - Q) H (W - Q)^T) of second moments H, plus the mean of 1 - |2 h - 1|^beta, which
    drives h to 0 or 1. Scales are those with the least error of outputs in which each group errs
    alone. No number is drawn.
    """
    assert layer.moments is not None
    moments = layer.moments.mean().float()
    scale, zero = least_error(layer, layer.blocks())
    soft = _Soft(layer, scale, zero)
    with torch.enable_grad():
        optimizer = torch.optim.Adam([soft.v], lr=_RATE)
        start = _error(layer.weight - soft.weight(soft.nearest), moments).clamp(min=1e-30)
        for step in range(settings.steps):
            up = soft.up()
            loss = _error(layer.weight - soft.weight(up), moments) / start
            loss = loss + _REGULAR * _regularizer(up, step / settings.steps)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        hard = soft.weight((soft.v >= 0).to(soft.v.dtype))
    return Chosen(scale, zero, hard)


def _error(difference: Tensor, moments: Tensor) -> Tensor:
    return ((difference @ moments) * difference).sum()


def _regularizer(up: Tensor, done: float) -> Tensor:
    """What drives values to 0 or 1, more sharply as time goes on; 0 while it is warming up."""
    if done < _WARM_UP:
        return torch.zeros(())
    share = (done - _WARM_UP) / (1 - _WARM_UP)
    first, last = _EXPONENTS
    exponent = last + (first - last) * (1 - share)
    return (1 - (2 * up - 1).abs().pow(exponent)).mean()


class _Soft:
    """A weight between its lower and its upper whole numbers; all of its tensors are [out, in].

    Attributes:
        v: what is learned.
        nearest: 1 where the upper number is the nearest one, else 0.
    """

    def __init__(self, layer: Layer, scale: Tensor, zero: Tensor | None) -> None:
        size = layer.weight.shape[1] // layer.groups
        middle = torch.full_like(scale, 1 << (layer.bits - 1)) if zero is None else zero
        self.scale = scale.repeat_interleave(size, 1)
        self.zero = middle.to(scale.dtype).repeat_interleave(size, 1)
        self.high = (1 << layer.bits) - 1
        ratio = layer.weight / self.scale
        self.floor = ratio.floor()
        above = ratio - self.floor
        self.nearest = (above >= 0.5).float()
        start = (above + _STRETCH) / (1 + 2 * _STRETCH)
        self.v = torch.logit(start).requires_grad_()

    def up(self) -> Tensor:
        """How far each value is above its lower number, from 0 to 1."""
        stretched = (1 + 2 * _STRETCH) * torch.sigmoid(self.v) - _STRETCH
        return stretched.clamp(0, 1)

    def weight(self, up: Tensor) -> Tensor:
        """The weight whose values are so far above their lower numbers."""
        whole = (self.floor + up + self.zero).clamp(0, self.high)
        return (whole - self.zero) * self.scale
