"""Functions related to the gamma function, computed in float64.

Formulas from the NIST Digital Library of Mathematical Functions (dlmf.nist.gov), by number.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from strop.compiler.lower.onnx.formulas.approximation import like, polynomial
from strop.compiler.lower.onnx.formulas.registry import formula

aten = torch.ops.aten
prims = torch.ops.prims

# C. Lanczos's approximation with g = 7 and nine terms, as published by P. Godfrey.
_LANCZOS = (
    0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313,
    -176.61502916214059, 12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6,
    1.5056327351493116e-7,
)  # fmt: skip
# Bernoulli numbers B2, B4, ...
BERNOULLI = (
    1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798,
    -174611 / 330, 854513 / 138, -236364091 / 2730,
)  # fmt: skip
_FIRST = BERNOULLI[:6]
# From here on an asymptotic series is used; smaller arguments are raised by a recurrence.
_SHIFT = 10


@formula(prims.lgamma.default, aten.lgamma.default)
def lgamma(x: Tensor) -> Tensor:
    """Logarithm of |gamma|; below 1/2 by reflection (5.5.3)."""
    z = x.to(torch.float64)
    low = z < 0.5
    y = torch.where(low, 1 - z, z) - 1
    series = torch.full_like(y, _LANCZOS[0])
    for i, coefficient in enumerate(_LANCZOS[1:], start=1):
        series = series + coefficient / (y + i)
    t = y + 7.5
    upper = 0.5 * math.log(2 * math.pi) + (y + 0.5) * t.log() - t + series.log()
    reflected = math.log(math.pi) - (math.pi * (z - z.round())).sin().abs().log() - upper
    result = torch.where(low, reflected, upper)
    return like(x, torch.where(z.isinf(), torch.full_like(z, torch.inf), result))


def _psi(n: int, y: Tensor) -> Tensor:
    """The n-th derivative of digamma for positive arguments (5.11.2, 5.15.8)."""
    total = torch.zeros_like(y)
    for k in range(_SHIFT):
        total = total + (y + k).pow(-(n + 1)) if n else total + 1 / (y + k)
    z = y + _SHIFT
    if n == 0:
        tail = z.log() - 0.5 / z
        for k, b in enumerate(_FIRST, start=1):
            tail = tail - b / (2 * k) / z.pow(2 * k)
        return tail - total
    sign, factorial = 1 if n % 2 else -1, math.factorial(n)
    tail = math.factorial(n - 1) / z.pow(n) + factorial / (2 * z.pow(n + 1))
    for k, b in enumerate(_FIRST, start=1):
        weight = b * math.factorial(2 * k + n - 1) / math.factorial(2 * k)
        tail = tail + weight / z.pow(2 * k + n)
    return sign * (factorial * total + tail)


@formula(prims.digamma.default, aten.digamma.default)
def digamma(x: Tensor) -> Tensor:
    """Derivative of lgamma; below 0 by reflection (5.5.4)."""
    z = x.to(torch.float64)
    low = z < 0
    upper = _psi(0, torch.where(low, 1 - z, z))
    angle = math.pi * (z - z.round())
    result = torch.where(low, upper - math.pi * angle.cos() / angle.sin(), upper)
    result = torch.where(low & (z == z.round()), torch.full_like(z, torch.nan), result)
    result = torch.where(z == 0, -torch.copysign(torch.full_like(z, torch.inf), z), result)
    return like(x, torch.where(z == torch.inf, z, result))


@formula(aten.polygamma.default)
def polygamma(n: int, x: Tensor) -> Tensor:
    """The n-th derivative of digamma; below 0 by reflection (5.15.6)."""
    if n == 0:
        return digamma(x)
    z = x.to(torch.float64)
    low = z < 0
    upper = _psi(n, torch.where(low, 1 - z, z))
    angle = math.pi * (z - z.round())
    cotangent = angle.cos() / angle.sin()
    slope = math.pi ** (n + 1) * polynomial(cotangent, _cotangent_derivative(n))
    reflected = (-1) ** n * upper - slope
    pole = torch.full_like(z, torch.inf) * (-1) ** (n + 1)
    result = torch.where(low, reflected, upper)
    return like(x, torch.where((z <= 0) & (z == z.round()), pole, result))


def _cotangent_derivative(n: int) -> list[float]:
    """Coefficients of the n-th derivative of cot, as a polynomial in cot: cot' = -1 - cot²."""
    coefficients = [0.0, 1.0]
    for _ in range(n):
        new = [0.0] * (len(coefficients) + 1)
        for power, c in enumerate(coefficients):
            if power:
                new[power - 1] -= power * c
                new[power + 1] -= power * c
        coefficients = new
    return coefficients
