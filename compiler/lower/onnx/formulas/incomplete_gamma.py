"""The regularized incomplete gamma functions, computed in float64.

Between a and x, both above zero, the lower function P is x^a e^-x / Γ(a) times

    ∫ exp(x (1 + w - e^w) + (a - x) w) dw    over all w < 0,

and the upper function Q the same over all w > 0 (dlmf.nist.gov 8.2.1 and 8.2.2 with t = x e^w). The
exponent falls from 0 at least as fast as a line. The
smaller of the two, P where x < a, is integrated by the double exponential rule
w = exp(t - exp(-t)); the other one is 1 minus it.
Below x = 1, P is summed as a power series (8.7.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from strop.compiler.lower.onnx.formulas.approximation import like, operands
from strop.compiler.lower.onnx.formulas.gamma import BERNOULLI
from strop.compiler.lower.onnx.formulas.registry import formula
from strop.compiler.lower.onnx.formulas.repeat import repeat

aten = torch.ops.aten

# The number of points of the rule, the first one, and their distance.
_POINTS, _FIRST, _WIDTH = 78, -3.7, 0.1
# Terms of the power series for x < 1.
_TERMS = 20
# From here on gamma is computed by Stirling's series; its number of terms.
_LARGE, _STIRLING = 10, 6


def _point(k: Tensor, state: Sequence[Tensor], fixed: Sequence[Tensor]) -> list[Tensor]:
    """Add the integrand at one point."""
    (total,), (a, x) = state, fixed
    t = k.to(torch.float64) * _WIDTH + _FIRST
    distance = torch.maximum((x - a).abs(), x.sqrt())
    point = (t - (-t).exp()).exp() / distance
    w = torch.where(x < a, -point, point)
    exponent = x * (w - w.expm1()) + (a - x) * w
    return [total + point * (1 + (-t).exp()) * exponent.exp()]


def _factor(a: Tensor, x: Tensor) -> Tensor:
    """``x^a e^-x / Γ(a)``, without the cancellation of large terms."""
    plain = a * x.log() - x - a.lgamma()
    large = a.clamp(min=_LARGE)
    excess = (x - large) / large
    stirling = torch.zeros_like(a)
    for k, b in enumerate(BERNOULLI[:_STIRLING], start=1):  # 5.11.1
        stirling = stirling + b / (2 * k * (2 * k - 1)) / large.pow(2 * k - 1)
    leading = large * (excess.log1p() - excess) + (large / (2 * math.pi)).log() / 2
    return torch.where(a < _LARGE, plain, leading - stirling).exp()


def _series(a: Tensor, x: Tensor) -> Tensor:
    """``1/a + x/(a (a + 1)) + …``."""
    total = torch.ones_like(a)
    for k in range(_TERMS, 0, -1):
        total = 1 + total * x / (a + k)
    return total / a


def _edges(a: Tensor, x: Tensor) -> Tensor:
    """P where an argument is zero, infinite, negative or NaN."""
    zero, one, nan = (torch.full_like(a, v) for v in (0.0, 1.0, torch.nan))
    value = torch.where(x == torch.inf, one, nan)
    value = torch.where(a == torch.inf, torch.where(x == torch.inf, nan, zero), value)
    value = torch.where(x == 0, zero, value)
    value = torch.where(a == 0, torch.where(x > 0, one, nan), value)
    return torch.where((x < 0) | (a < 0), nan, value)


def _both(a: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """P and Q of finite numbers above zero."""
    (total,) = repeat(_point, _POINTS, [torch.zeros_like(a)], [a, x])
    factor = _factor(a, x)
    integral = factor * total * _WIDTH
    lower = torch.where(x < a, integral, 1 - integral)
    upper = torch.where(x < a, 1 - integral, integral)
    series = factor * _series(a, x)
    return torch.where(x < 1, series, lower), torch.where(x < 1, 1 - series, upper)


def _regularized(a: Tensor, x: Tensor, upper: bool) -> Tensor:
    narrow, other = operands(a, x)
    a, x = narrow.to(torch.float64), other.to(torch.float64)
    inside = (a > 0) & (x > 0) & (a < torch.inf) & (x < torch.inf)
    one = torch.ones_like(a)
    found = _both(torch.where(inside, a, one), torch.where(inside, x, one))[upper]
    edge = _edges(a, x)
    return like(narrow, torch.where(inside, found, 1 - edge if upper else edge))


@formula(aten.igamma.default)
def igamma(a: Tensor, x: Tensor) -> Tensor:
    """The lower function P."""
    return _regularized(a, x, upper=False)


@formula(aten.igammac.default)
def igammac(a: Tensor, x: Tensor) -> Tensor:
    """The upper function Q."""
    return _regularized(a, x, upper=True)
