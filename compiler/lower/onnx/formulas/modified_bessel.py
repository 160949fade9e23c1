"""Modified Bessel functions of orders 0 and 1.

Formulas from the NIST Digital Library of Mathematical Functions (dlmf.nist.gov), by number.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from strop.compiler.lower.onnx.formulas import cephes
from strop.compiler.lower.onnx.formulas.approximation import (
    as_float,
    chebyshev_series,
    like,
    polynomial,
)
from strop.compiler.lower.onnx.formulas.registry import formula

aten = torch.ops.aten
prims = torch.ops.prims

# Up to here the modified Bessel functions are summed as a power series, from here on as an
# asymptotic one.
_FAR = 20.0
# Terms of the power series up to there.
_TERMS = 50
# Below this, K is a logarithm times I and a series; its terms of I.
_SMALL, _FEW = 2.0, 15


def _power_series(order: int, x: Tensor, terms: int) -> Tensor:
    """I by its power series (10.25.2)."""
    coefficients = [1.0]
    for k in range(1, terms):
        coefficients.append(coefficients[-1] / (k * (k + order)))
    series = polynomial(x * x / 4, coefficients)
    return series * (x / 2) if order else series


def _bessel_i(order: int, x: Tensor, scaled: bool) -> Tensor:
    """Modified Bessel function of order 0 or 1 (10.25.2, 10.40.1), over exp(|x|) if scaled."""
    size = x.to(torch.float64).abs()
    near, far = size.clamp(max=_FAR), size.clamp(min=_FAR)
    series = _power_series(order, near, _TERMS)
    mu, term, tail = 4 * order * order, torch.ones_like(far), torch.ones_like(far)
    for k in range(1, 14):
        term = -term * (mu - (2 * k - 1) ** 2) / (8 * k * far)
        tail = tail + term
    tail = tail / (2 * math.pi * far).sqrt()
    value = torch.where(size <= _FAR, series * (-near).exp(), tail)
    value = like(x, value * x.to(torch.float64).sign() if order else value)
    return value if scaled else value * as_float(x).abs().exp()


@formula(prims.bessel_i0.default, aten.i0.default, aten.special_modified_bessel_i0.default)
def bessel_i0(x: Tensor) -> Tensor:
    """Order 0."""
    return _bessel_i(0, x, scaled=False)


@formula(prims.bessel_i0e.default, aten.special_i0e.default)
def bessel_i0e(x: Tensor) -> Tensor:
    """Order 0, over exp(|x|)."""
    return _bessel_i(0, x, scaled=True)


@formula(prims.bessel_i1.default, aten.special_i1.default, aten.special_modified_bessel_i1.default)
def bessel_i1(x: Tensor) -> Tensor:
    """Order 1."""
    return _bessel_i(1, x, scaled=False)


@formula(prims.bessel_i1e.default, aten.special_i1e.default)
def bessel_i1e(x: Tensor) -> Tensor:
    """Order 1, over exp(|x|)."""
    return _bessel_i(1, x, scaled=True)


def _bessel_k(order: int, x: Tensor, scaled: bool) -> Tensor:
    """Modified Bessel function of the second kind, times exp(x) if scaled; as in Cephes."""
    x = as_float(x)
    logarithm = (x / 2).log() * _power_series(order, x, _FEW)
    if order:
        near = logarithm + chebyshev_series(x * x - 2, cephes.K1_NEAR) / x
    else:
        near = chebyshev_series(x * x - 2, cephes.K0_NEAR) - logarithm
    tail = cephes.K1_FAR if order else cephes.K0_FAR
    far = chebyshev_series(8 / x - 2, tail) / x.sqrt()
    near, far = (near * x.exp(), far) if scaled else (near, far * (-x).exp())
    result = torch.where(x <= _SMALL, near, far)
    return torch.where(x == 0, torch.full_like(x, torch.inf), result)


@formula(aten.special_modified_bessel_k0.default)
def bessel_k0(x: Tensor) -> Tensor:
    """Order 0."""
    return _bessel_k(0, x, scaled=False)


@formula(aten.special_scaled_modified_bessel_k0.default)
def bessel_k0e(x: Tensor) -> Tensor:
    """Order 0, times exp(x)."""
    return _bessel_k(0, x, scaled=True)


@formula(aten.special_modified_bessel_k1.default)
def bessel_k1(x: Tensor) -> Tensor:
    """Order 1."""
    return _bessel_k(1, x, scaled=False)


@formula(aten.special_scaled_modified_bessel_k1.default)
def bessel_k1e(x: Tensor) -> Tensor:
    """Order 1, times exp(x)."""
    return _bessel_k(1, x, scaled=True)
