"""Functions in float64 for which the runtime has kernels in float32 only.

They use those that it has in float64: exp, log, sin, cos, sqrt.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from strop.compiler.lower.onnx.formulas.approximation import polynomial
from strop.compiler.lower.onnx.formulas.registry import formula

aten = torch.ops.aten
# erf is summed as a series up to here, from here on 1 less a continued fraction.
MIDDLE = 3.0


@formula(aten.tan.default)
def tan(x: Tensor) -> Tensor:
    """Sine over cosine."""
    return x.sin() / x.cos()


@formula(aten.atan.default)
def atan(x: Tensor) -> Any:
    """In float32, made exact by one step of Newton's method; large arguments by 1 / x."""
    if x.dtype == torch.float32:  # the call below: torch then leaves it as it is
        return NotImplemented
    large = x.abs() > 1
    y = torch.where(large, 1 / x, x)
    angle = y.to(torch.float32).atan().to(x.dtype)
    angle = angle + (y * angle.cos() - angle.sin()) * angle.cos()
    return torch.where(large, torch.copysign(torch.full_like(x, math.pi / 2), x) - angle, angle)


@formula(aten.asin.default)
def asin(x: Tensor) -> Tensor:
    """``atan(x / sqrt(1 - x²))``."""
    return (x / ((1 - x) * (1 + x)).sqrt()).atan()


@formula(aten.acos.default)
def acos(x: Tensor) -> Tensor:
    """``2 atan(sqrt((1 - x) / (1 + x)))``."""
    return 2 * ((1 - x) / (1 + x)).sqrt().atan()


@formula(aten.asinh.default)
def asinh(x: Tensor) -> Tensor:
    """``log(x + sqrt(x² + 1))`` without the cancellation near zero."""
    size = x.abs()
    near = torch.log1p(size + size * size / (1 + (size * size + 1).sqrt()))
    far = size.log() + math.log(2)
    return torch.where(size > 1e8, far, near) * x.sign()


@formula(aten.acosh.default)
def acosh(x: Tensor) -> Tensor:
    """``log(x + sqrt(x² - 1))``."""
    near = (x + ((x - 1) * (x + 1)).sqrt()).log()
    result = torch.where(x > 1e8, x.log() + math.log(2), near)
    return torch.where(x < 1, torch.full_like(x, torch.nan), result)


@formula(aten.atanh.default)
def atanh(x: Tensor) -> Tensor:
    """Half the logarithm of ``(1 + x) / (1 - x)``."""
    return torch.log1p(2 * x / (1 - x)) / 2


@formula(aten.cosh.default)
def cosh(x: Tensor) -> Tensor:
    """By exponentials, halved before they overflow."""
    half = (x.abs() / 2).exp()
    return half / 2 * half + (-x.abs()).exp() / 2


@formula(aten.sinh.default)
def sinh(x: Tensor) -> Tensor:
    """By exponentials, near zero by the series."""
    square = x * x
    series = torch.ones_like(x)
    for n in range(9, 0, -1):
        series = 1 + series * square / ((2 * n) * (2 * n + 1))
    half = (x.abs() / 2).exp()
    far = (half / 2 * half - (-x.abs()).exp() / 2) * x.sign()
    return torch.where(x.abs() < 1, x * series, far)


@formula(aten.expm1.default)
def expm1(x: Tensor) -> Tensor:
    """``2 exp(x/2) sinh(x/2)``; below -80 it is -1."""
    y = torch.where(x < -80, torch.full_like(x, -80.0), x) / 2
    return 2 * y.exp() * y.sinh()


def error_series(x: Tensor) -> Tensor:
    """``erf(x) exp(x²)`` for x from 0 to 3 (dlmf.nist.gov 7.6.2)."""
    coefficients = [2 / math.sqrt(math.pi)]
    for n in range(1, 60):
        coefficients.append(coefficients[-1] * 2 / (2 * n + 1))
    return x * polynomial(x * x, coefficients)


def error_fraction(x: Tensor) -> Tensor:
    """``(1 - erf(x)) exp(x²)`` for x from 3 on (dlmf.nist.gov 7.9.1)."""
    fraction = x
    for n in range(40, 0, -1):
        fraction = x + n / 2 / fraction
    return 1 / math.sqrt(math.pi) / fraction


@formula(aten.erf.default)
def erf(x: Tensor) -> Tensor:
    """By a series near zero, and a continued fraction far from it."""
    size = x.abs()
    near, far = size.clamp(max=MIDDLE), size.clamp(min=MIDDLE)
    inner = (-near * near).exp() * error_series(near)
    outer = 1 - (-far * far).exp() * error_fraction(far)
    return torch.where(size < MIDDLE, inner, outer) * x.sign()
