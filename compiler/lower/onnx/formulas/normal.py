"""The normal distribution and the error function, computed in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from strop.compiler.lower.onnx.formulas.approximation import like, ratio
from strop.compiler.lower.onnx.formulas.double import MIDDLE, error_fraction, error_series
from strop.compiler.lower.onnx.formulas.registry import formula

aten = torch.ops.aten
prims = torch.ops.prims

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


def _quantile(middle: Tensor, tail: Tensor) -> Tensor:
    """The normal quantile of ``1/2 + middle``; ``tail`` is the smaller of p and 1 - p."""
    central = middle * ratio(0.180625 - middle * middle, _CENTRE)
    distance = (-tail.log()).sqrt()
    near, far = ratio(distance - 1.6, _SIDES), ratio(distance - 5, _TAILS)
    outer = torch.where(distance <= 5, near, far)
    outer = torch.where(tail == 0, torch.full_like(outer, torch.inf), outer)
    outer = torch.where(tail < 0, torch.full_like(outer, torch.nan), outer)
    return torch.where(middle.abs() <= 0.425, central, torch.where(middle < 0, -outer, outer))


@formula(prims.erf_inv.default, aten.erfinv.default)
def erfinv(x: Tensor) -> Tensor:
    """Inverse of erf, by the normal quantile of (x + 1) / 2."""
    z = x.to(torch.float64)
    return like(x, _quantile(z / 2, (1 - z.abs()) / 2) / math.sqrt(2))


@formula(prims.ndtri.default, aten.special_ndtri.default)
def ndtri(x: Tensor) -> Tensor:
    """The normal quantile."""
    z = x.to(torch.float64)
    return like(x, _quantile(z - 0.5, torch.minimum(z, 1 - z)))


def _scaled_complement(size: Tensor) -> Tensor:
    """``(1 - erf(size)) exp(size²)`` of numbers that are not negative."""
    near, far = size.clamp(max=MIDDLE), size.clamp(min=MIDDLE)
    inner = (near * near).exp() - error_series(near)
    return torch.where(size < MIDDLE, inner, error_fraction(far))


@formula(prims.erfcx.default, aten.special_erfcx.default)
def erfcx(x: Tensor) -> Tensor:
    """The complement of erf, scaled so that it does not vanish; infinite below -26.7."""
    z = x.to(torch.float64)
    upper = _scaled_complement(z.abs())
    return like(x, torch.where(z < 0, 2 * (z * z).exp() - upper, upper))


@formula(aten.special_log_ndtr.default)
def log_ndtr(x: Tensor) -> Tensor:
    """Logarithm of the normal distribution function; below -1 without its exponential."""
    z = x.to(torch.float64)
    square = z * z / 2
    scaled = _scaled_complement(z.abs() / math.sqrt(2))
    tail = (-square).exp() * scaled / 2
    upper = torch.log1p(-torch.where(z < 0, 1 - tail, tail))
    return like(x, torch.where(z < -1, (scaled / 2).log() - square, upper))
