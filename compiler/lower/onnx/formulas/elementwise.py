"""Elementwise functions."""

from __future__ import annotations

import torch
from torch import Tensor

from strop.compiler.lower.onnx.formulas.registry import formula

prims = torch.ops.prims
aten = torch.ops.aten


@formula(prims.signbit.default, aten.signbit.default)
def signbit(x: Tensor) -> Tensor:
    """True for negative numbers and for -0.0, which is known by its reciprocal."""
    if not x.is_floating_point():
        return x < 0
    return torch.where(x == 0, x.reciprocal() < 0, x < 0)


@formula(aten.angle.default)
def angle(x: Tensor) -> Tensor:
    """Of a real number: 0, or pi where it is negative; NaN for NaN."""
    turned = torch.where(x < 0, torch.pi, 0.0)
    return torch.where(x.isnan(), x, turned) if x.is_floating_point() else turned


@formula(prims.fmax.default, aten.fmax.default)
def fmax(a: Tensor, b: Tensor) -> Tensor:
    """The larger of two; where one is NaN, the other."""
    return torch.where(a.isnan(), b, torch.where(b.isnan(), a, torch.maximum(a, b)))


@formula(prims.fmin.default, aten.fmin.default)
def fmin(a: Tensor, b: Tensor) -> Tensor:
    """The smaller of two; where one is NaN, the other."""
    return torch.where(a.isnan(), b, torch.where(b.isnan(), a, torch.minimum(a, b)))


@formula(prims.hypot.default, aten.hypot.default)
def hypot(a: Tensor, b: Tensor) -> Tensor:
    """``sqrt(a² + b²)``, scaled by the larger so that no square overflows."""
    large, small = torch.maximum(a.abs(), b.abs()), torch.minimum(a.abs(), b.abs())
    ratio = torch.where(large == 0, torch.zeros_like(large), small / large)
    length = large * (1 + ratio * ratio).sqrt()
    return torch.where(a.isinf() | b.isinf(), torch.full_like(length, torch.inf), length)


@formula(aten.copy.default)
def copy(x: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    """The source in the shape and dtype of another tensor."""
    return source.to(x.dtype).expand(x.shape).clone()


@formula(aten.rrelu_with_noise_functional.default)
def rrelu(
    x: Tensor,
    noise: Tensor,
    lower: float = 0.125,
    upper: float = 1 / 3,
    training: bool = False,
    generator: None = None,
) -> tuple[Tensor, Tensor]:
    """In eval mode: a leaky ReLU with the mean of the two slopes."""
    if training:
        raise NotImplementedError("randomized leaky ReLU in train mode")
    return torch.where(x > 0, x, x * ((lower + upper) / 2)), noise
