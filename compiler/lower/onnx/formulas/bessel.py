"""Bessel functions of orders 0 and 1, as in Cephes, in the dtype of the result.

In float32 the phase of a large argument is rounded, as torch rounds it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from strop.compiler.lower.onnx.formulas import cephes
from strop.compiler.lower.onnx.formulas.approximation import Ratio, as_float, polynomial, ratio
from strop.compiler.lower.onnx.formulas.registry import formula

aten = torch.ops.aten

# Up to here a rational function of x² is used, above it the asymptotic wave.
_FAR = 5.0


class _Order(NamedTuple):
    """The coefficients of the functions of one order.

    Attributes:
        zeros: squares of the first two zeros of J.
        near: J over its zeros, in x².
        second: Y near zero, without its logarithmic term.
        cosine, sine: P and Q of DLMF 10.17.3, in 25 / x², without Q's factor of 5 / x.
        phase: what is subtracted from x in the argument of the wave.
    """

    zeros: tuple[float, float]
    near: Ratio
    second: Ratio
    cosine: Ratio
    sine: Ratio
    phase: float


_ZERO = _Order(
    zeros=(5.78318596294678452118, 30.4712623436620863991),
    near=cephes.J0_NEAR,
    second=cephes.Y0_NEAR,
    cosine=cephes.J0_COSINE,
    sine=cephes.J0_SINE,
    phase=math.pi / 4,
)
_ONE = _Order(
    zeros=(14.6819706421238932572, 49.2184563216946036703),
    near=cephes.J1_NEAR,
    second=cephes.Y1_NEAR,
    cosine=cephes.J1_COSINE,
    sine=cephes.J1_SINE,
    phase=3 * math.pi / 4,
)


def _near(x: Tensor, order: _Order) -> Tensor:
    """J near zero; of order 1, J over x."""
    square = x * x
    first, second = order.zeros
    return (square - first) * (square - second) * ratio(square, order.near)


def _wave(x: Tensor, order: _Order) -> tuple[Tensor, Tensor, Tensor]:
    """P, Q and the phase far from zero, the first two with the wave's height as a factor."""
    part = _FAR / x
    square = part * part
    height = math.sqrt(2 / math.pi) / x.sqrt()
    p, q = ratio(square, order.cosine), part * ratio(square, order.sine)
    return p * height, q * height, x - order.phase


@formula(aten.special_bessel_j0.default)
def bessel_j0(x: Tensor) -> Tensor:
    """Of the first kind, order 0."""
    size = as_float(x).abs()
    p, q, angle = _wave(size, _ZERO)
    far = p * angle.cos() - q * angle.sin()
    return torch.where(size <= _FAR, _near(size, _ZERO), far)


@formula(aten.special_bessel_j1.default)
def bessel_j1(x: Tensor) -> Tensor:
    """Of the first kind, order 1."""
    x = as_float(x)
    size = x.abs()
    p, q, angle = _wave(size, _ONE)
    far = p * angle.cos() - q * angle.sin()
    return torch.where(size <= _FAR, size * _near(size, _ONE), far) * x.sign()


@formula(aten.special_bessel_y0.default)
def bessel_y0(x: Tensor) -> Tensor:
    """Of the second kind, order 0."""
    x = as_float(x)
    near = ratio(x * x, _ZERO.second) + 2 / math.pi * x.log() * _near(x, _ZERO)
    p, q, angle = _wave(x, _ZERO)
    return torch.where(x <= _FAR, near, p * angle.sin() + q * angle.cos())


@formula(aten.special_bessel_y1.default)
def bessel_y1(x: Tensor) -> Tensor:
    """Of the second kind, order 1."""
    x = as_float(x)
    logarithm = x * _near(x, _ONE) * x.log()
    near = x * ratio(x * x, _ONE.second) + 2 / math.pi * (logarithm - 1 / x)
    p, q, angle = _wave(x, _ONE)
    result = torch.where(x <= _FAR, near, p * angle.sin() + q * angle.cos())
    return torch.where(x == 0, torch.full_like(x, -torch.inf), result)


@formula(aten.special_spherical_bessel_j0.default)
def spherical_bessel_j0(x: Tensor) -> Tensor:
    """``sin(x) / x``, near zero by its series."""
    x = as_float(x)
    series = polynomial(x * x, [(-1) ** k / math.factorial(2 * k + 1) for k in range(7)])
    result = torch.where(x.abs() < 0.5, series, x.sin() / x)
    return torch.where(x.isinf(), torch.zeros_like(x), result)
