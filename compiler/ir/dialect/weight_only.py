"""Weights of 2 to 8 bits in groups, each with a scale of its own; activations stay in float.

A weight is [rows, size] float. Each row is cut into groups of equal length: scales are
[rows, groups] float, zero points [rows, groups] int32. The whole numbers are unsigned, from 0 to
2^bits - 1; without zero points every one of them is 2^(bits - 1): a symmetric grid.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from strop.compiler.ir.dialect.quantize import fake_quantize
from strop.compiler.ir.dialect.registry import define


def _groups(weight: Tensor, groups: int) -> Tensor:
    return weight.reshape(weight.shape[0], groups, -1)


def _zero(scale: Tensor, zero_point: Tensor | None, bits: int) -> Tensor:
    if zero_point is None:
        return torch.full_like(scale, 1 << (bits - 1), dtype=torch.int32)
    return zero_point


@define("group_scale(Tensor weight, int groups, int bits, bool symmetric) -> Tensor")
def group_scale(weight: Tensor, groups: int, bits: int, symmetric: bool) -> Tensor:
    """The scale of each group that covers its values, 1 for a group of zeros: [rows, groups].

    Not symmetric: (max(w, 0) - min(w, 0)) / (2^bits - 1). Symmetric: m / -2^(bits - 1) with m the
    value furthest from 0, so that m becomes the whole number 0: there are more numbers below the
    middle than above it. The scale is negative where m is above 0.
    """
    parts = _groups(weight.detach(), groups)
    low, high = parts.amin(2).clamp(max=0), parts.amax(2).clamp(min=0)
    if symmetric:
        scale = torch.where(high > -low, high, low) / -(1 << (bits - 1))
    else:
        scale = (high - low) / ((1 << bits) - 1)
    return torch.where(scale != 0, scale, torch.ones_like(scale))


@define("group_zero_point(Tensor weight, Tensor scale, int bits) -> Tensor")
def group_zero_point(weight: Tensor, scale: Tensor, bits: int) -> Tensor:
    """The whole number that stands for 0 in each group under a scale that covers it: int32."""
    low = _groups(weight.detach(), scale.shape[1]).amin(2).clamp(max=0)
    return (-low / scale.detach()).round().clamp(0, (1 << bits) - 1).to(torch.int32)


@define("whole_numbers(Tensor weight, Tensor scale, Tensor? zero_point, int bits) -> Tensor")
def whole_numbers(weight: Tensor, scale: Tensor, zero_point: Tensor | None, bits: int) -> Tensor:
    """round(w / scale) + zero_point of each value, within [0, 2^bits - 1], as uint8."""
    zero = _zero(scale, zero_point, bits)[:, :, None]
    ratio = _groups(weight, scale.shape[1]) / scale[:, :, None]
    return (ratio.round() + zero).clamp(0, (1 << bits) - 1).to(torch.uint8).flatten(1)


@define("on_grid(Tensor weight, Tensor scale, Tensor? zero_point, int bits) -> Tensor")
def on_grid(weight: Tensor, scale: Tensor, zero_point: Tensor | None, bits: int) -> Tensor:
    """The weight rounded to its grid, in float; the gradients are those of ``fake_quantize``."""
    parts = _groups(weight, scale.shape[1]).flatten(0, 1)
    zero = _zero(scale, zero_point, bits).flatten()
    rounded: Tensor = fake_quantize(parts, scale.flatten(), zero, 0, 0, (1 << bits) - 1)
    return rounded.reshape(weight.shape)


@define(
    "linear_nbits(Tensor x, Tensor weight, Tensor scale, Tensor? zero_point, Tensor? bias, "
    "int bits) -> Tensor",
    stored={"weight": "bits", "zero_point": "bits"},
)
def linear_nbits(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    zero_point: Tensor | None,
    bias: Tensor | None,
    bits: int,
) -> Tensor:
    """Linear on a weight [out, in] that is rounded here, so that it can still be trained.

    x: [..., in] float; bias: [out] float; result: [..., out] of x's dtype, to which the rounded
    weight is cast where it is another one.
    """
    return F.linear(x, on_grid(weight, scale, zero_point, bits).to(x.dtype), bias)


@define(
    "embedding_nbits(Tensor weight, Tensor scale, Tensor? zero_point, Tensor indices, int bits) "
    "-> Tensor",
    stored={"weight": "bits", "zero_point": "bits"},
)
def embedding_nbits(
    weight: Tensor, scale: Tensor, zero_point: Tensor | None, indices: Tensor, bits: int
) -> Tensor:
    """Rows of a table that is rounded here: indices [...] int; result [..., size]."""
    flat = indices.flatten()
    zero = None if zero_point is None else zero_point[flat]
    rows: Tensor = on_grid(F.embedding(flat, weight), F.embedding(flat, scale), zero, bits)
    return rows.unflatten(0, indices.shape) if indices.dim() else rows[0]
