"""Special functions, computed in float64.

Formulas from the NIST Digital Library of Mathematical Functions (dlmf.nist.gov), by number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

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
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730)
# An asymptotic series is used from here on; below, a recurrence leads there.
_SHIFT = 10


def _polynomial(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    """``c0 + c1 x + c2 x² + …`` by Horner's rule."""
    result = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = result * x + coefficient
    return result


def _as(x: Tensor, value: Tensor) -> Tensor:
    """In the dtype of the result: the argument's, or float32 for an integer."""
    return value.to(x.dtype if x.is_floating_point() else torch.float32)


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
    return _as(x, torch.where(z.isinf(), torch.full_like(z, torch.inf), result))


def _psi(n: int, y: Tensor) -> Tensor:
    """The n-th derivative of digamma for positive arguments (5.11.2, 5.15.8)."""
    total = torch.zeros_like(y)
    for k in range(_SHIFT):
        total = total + (y + k).pow(-(n + 1)) if n else total + 1 / (y + k)
    z = y + _SHIFT
    if n == 0:
        tail = z.log() - 0.5 / z
        for k, b in enumerate(_BERNOULLI, start=1):
            tail = tail - b / (2 * k) / z.pow(2 * k)
        return tail - total
    sign, factorial = 1 if n % 2 else -1, math.factorial(n)
    tail = math.factorial(n - 1) / z.pow(n) + factorial / (2 * z.pow(n + 1))
    for k, b in enumerate(_BERNOULLI, start=1):
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
    return _as(x, torch.where(z == torch.inf, z, result))


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
    slope = math.pi ** (n + 1) * _polynomial(cotangent, _cotangent_derivative(n))
    reflected = (-1) ** n * upper - slope
    pole = torch.full_like(z, torch.inf) * (-1) ** (n + 1)
    result = torch.where(low, reflected, upper)
    return _as(x, torch.where((z <= 0) & (z == z.round()), pole, result))


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


# M. J. Wichura, Algorithm AS 241: the normal quantile to about 16 figures.
_CENTRE = (
    (3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3,
     1.3731693765509461125e4, 4.5921953931549871457e4, 6.7265770927008700853e4,
     3.3430575583588128105e4, 2.5090809287301226727e3),
    (1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
     2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4,
     5.2264952788528545610e3),
)  # fmt: skip
_SIDES = (
    (1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0,
     3.64784832476320460504e0, 1.27045825245236838258e0, 2.41780725177450611770e-1,
     2.27238449892691845833e-2, 7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
     1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4,
     1.05075007164441684324e-9),
)  # fmt: skip
_TAILS = (
    (6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0,
     2.96560571828504891230e-1, 2.65321895265761230930e-2, 1.24266094738807843860e-3,
     2.71155556874348757815e-5, 2.01033439929228813265e-7),
    (1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
     7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7,
     2.04426310338993978564e-15),
)  # fmt: skip


def _ratio(x: Tensor, parts: tuple[Sequence[float], Sequence[float]]) -> Tensor:
    return _polynomial(x, parts[0]) / _polynomial(x, parts[1])


def _quantile(middle: Tensor, tail: Tensor) -> Tensor:
    """The normal quantile of ``1/2 + middle``; ``tail`` is the smaller of p and 1 - p."""
    central = middle * _ratio(0.180625 - middle * middle, _CENTRE)
    distance = (-tail.log()).sqrt()
    near, far = _ratio(distance - 1.6, _SIDES), _ratio(distance - 5, _TAILS)
    outer = torch.where(distance <= 5, near, far)
    outer = torch.where(tail == 0, torch.full_like(outer, torch.inf), outer)
    outer = torch.where(tail < 0, torch.full_like(outer, torch.nan), outer)
    return torch.where(middle.abs() <= 0.425, central, torch.where(middle < 0, -outer, outer))


@formula(prims.erf_inv.default, aten.erfinv.default)
def erfinv(x: Tensor) -> Tensor:
    """Inverse of erf, by the normal quantile of (x + 1) / 2."""
    z = x.to(torch.float64)
    return _as(x, _quantile(z / 2, (1 - z.abs()) / 2) / math.sqrt(2))


@formula(prims.ndtri.default, aten.special_ndtri.default)
def ndtri(x: Tensor) -> Tensor:
    """The normal quantile."""
    z = x.to(torch.float64)
    return _as(x, _quantile(z - 0.5, torch.minimum(z, 1 - z)))


# Up to here the modified Bessel functions are summed as a power series, from here on as an
# asymptotic one.
_FAR = 20.0


def _bessel_i(order: int, x: Tensor, scaled: bool) -> Tensor:
    """Modified Bessel function of order 0 or 1 (10.25.2, 10.40.1), over exp(|x|) if scaled."""
    size = x.to(torch.float64).abs()
    near, far = size.clamp(max=_FAR), size.clamp(min=_FAR)
    quarter = near * near / 4
    series = torch.ones_like(quarter)
    for k in range(50, 0, -1):
        series = 1 + series * quarter / (k * (k + order))
    series = series * (near / 2 if order else 1)
    mu, term, tail = 4 * order * order, torch.ones_like(far), torch.ones_like(far)
    for k in range(1, 14):
        term = -term * (mu - (2 * k - 1) ** 2) / (8 * k * far)
        tail = tail + term
    tail = tail / (2 * math.pi * far).sqrt()
    if scaled:
        value = torch.where(size <= _FAR, series * (-near).exp(), tail)
    else:
        value = torch.where(size <= _FAR, series, tail * far.exp())
    return _as(x, value * x.to(torch.float64).sign() if order else value)


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
