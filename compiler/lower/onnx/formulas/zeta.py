"""Hurwitz's zeta function, computed in float64.

Formulas from the NIST Digital Library of Mathematical Functions (dlmf.nist.gov), by number.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from strop.compiler.lower.onnx.formulas.approximation import like, operands
from strop.compiler.lower.onnx.formulas.gamma import BERNOULLI
from strop.compiler.lower.onnx.formulas.registry import formula

aten = torch.ops.aten

# Terms of the sum before the Euler-Maclaurin formula takes over, as in Cephes.
_SUMMED = 9
_EPSILON = 2.0**-53
# Larger numbers are even, or infinite.
_EVEN = 2.0**53


def _hurwitz(s: Tensor, q: Tensor) -> Tensor:
    """Hurwitz's zeta function for s > 1 and q > 0 (25.11.7)."""
    total = q.pow(-s)
    for k in range(1, _SUMMED):
        total = total + (q + k).pow(-s)
    w = q + _SUMMED
    last = w.pow(-s)
    tail = last * w / (s - 1) + last / 2
    power, rising = last / w, s
    for k, b in enumerate(BERNOULLI, start=1):
        tail = tail + b / math.factorial(2 * k) * rising * power
        power = power / (w * w)
        rising = rising * (s + (2 * k - 1)) * (s + 2 * k)
    # Where the sum has converged, the factors of the tail may have overflowed.
    return torch.where(last <= _EPSILON * total, total, total + tail)


def _any_argument(s: Tensor, q: Tensor) -> Tensor:
    """The same for any q that is no pole.

    A negative q = f - m, with 0 < f < 1, has m more terms, (f - j)^-s for j from 1 to m. They are
    the difference of two other sums, with the sign of (-1)^s: s must be an integer.
    """
    positive, one = q > 0, torch.ones_like(q)
    fraction = torch.where(positive, q, q - q.floor())
    rest, far = torch.where(positive, one, 1 - fraction), torch.where(positive, one, 1 - q)
    first, second, third = _hurwitz(s, torch.stack([fraction, rest, far])).unbind()
    sign = 1 - 2 * (s.clamp(max=_EVEN) % 2)
    result = torch.where(positive, first, first + sign * (second - third))
    # Of a sum of zeros, torch gives NaN where a factor of its tail overflows.
    overflowing = s.pow(2 * len(BERNOULLI) - 1) * q
    return torch.where(result == 0, result * overflowing, result)


@formula(aten.special_zeta.default, aten.special_zeta.other_scalar, aten.special_zeta.self_scalar)
def zeta(x: Tensor | float, other: Tensor | float) -> Tensor:
    """Of an exponent x above 1; infinite at its poles."""
    x, other = operands(x, other)
    s, q = x.to(torch.float64), other.to(torch.float64)
    infinity, undefined = torch.full_like(q, torch.inf), torch.full_like(q, torch.nan)
    result = torch.where((q < 0) & (s != s.floor()), undefined, _any_argument(s, q))
    result = torch.where((q <= 0) & (q == q.floor()), infinity, result)
    result = torch.where(s < 1, undefined, result)
    return like(x, torch.where(s == 1, infinity, result))
