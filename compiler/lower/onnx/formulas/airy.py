"""Airy's function Ai, as in Cephes, in the dtype of the result."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from strop.compiler.lower.onnx.formulas import cephes
from strop.compiler.lower.onnx.formulas.approximation import as_float, polynomial, ratio
from strop.compiler.lower.onnx.formulas.registry import formula

aten = torch.ops.aten

# Between -this and this a power series is summed.
_NEAR = 2.09
# Above this, torch gives zero.
_LAST = 103.892
# Ai(0) and -Ai'(0), by DLMF 9.2.3 and 9.2.4.
_VALUE, _SLOPE = 0.355028053887817239260, 0.258819403792806798405
# Terms of the series, enough for float64.
_TERMS = 16


def _series(x: Tensor) -> Tensor:
    """DLMF 9.4.1: two series in x³."""
    even, odd = [1.0], [1.0]
    for k in range(3, 3 * _TERMS, 3):
        even.append(even[-1] / (k * (k - 1)))
        odd.append(odd[-1] / (k * (k + 1)))
    cube = x * x * x
    return _VALUE * polynomial(cube, even) - _SLOPE * x * polynomial(cube, odd)


@formula(aten.special_airy_ai.default)
def airy_ai(x: Tensor) -> Tensor:
    """Oscillating for negative arguments, decaying for positive ones (DLMF 9.7.5, 9.7.9)."""
    x = as_float(x)
    size = x.abs()
    zeta = 2 * size * size.sqrt() / 3
    height = 1 / math.sqrt(math.pi) / size.sqrt().sqrt()
    inverse = 1 / zeta
    decay = height / 2 * ratio(inverse, cephes.AIRY_DECAY) / zeta.exp()
    square, angle = inverse * inverse, zeta + math.pi / 4
    sine = 1 + square * ratio(square, cephes.AIRY_SINE)
    wave = height * (angle.sin() * sine - angle.cos() * inverse * ratio(square, cephes.AIRY_COSINE))
    result = torch.where(x < -_NEAR, wave, torch.where(x < _NEAR, _series(x), decay))
    result = torch.where(x > _LAST, torch.zeros_like(x), result)
    return torch.where(x.isinf(), torch.full_like(x, torch.nan), result)
