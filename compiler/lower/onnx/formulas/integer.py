"""Integer arithmetic that the runtime would do in floats."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from strop.compiler.lower.onnx.formulas.registry import formula
from strop.compiler.lower.onnx.formulas.repeat import repeat

aten, prims = torch.ops.aten, torch.ops.prims
# Bits of an exponent: a larger one is not needed to overflow 64 bits, but wraps to other numbers.
_BITS = 63
# Euclid's algorithm takes most steps on neighbours in Fibonacci's series, of which 92 fit (Knuth,
# The Art of Computer Programming 2, 4.5.3).
_EUCLID = 92


@formula(aten.pow.Tensor_Tensor)
def power(base: Tensor, exponent: Tensor) -> Tensor:
    """By squares, one for each bit of the exponent; wraps where it overflows, as torch does."""
    dtype = torch.promote_types(base.dtype, exponent.dtype)
    square, left = base.to(dtype), exponent.to(torch.int64).clamp(min=0)
    one = torch.ones_like(square)
    result = one
    for _ in range(_BITS):
        result = torch.where(left % 2 == 1, result * square, result)
        square, left = square * square, left // 2
    odd = exponent % 2 != 0
    sign = torch.where(odd & (base < 0), -one, one)
    inverse = torch.where(base.abs() == 1, sign, torch.zeros_like(one))
    return torch.where(exponent < 0, inverse, result)


@formula(aten.pow.Scalar)
def power_of_number(base: int, exponent: Tensor) -> Tensor:
    """The same for one number."""
    return power(torch.full_like(exponent, base), exponent)


@formula(prims.gcd.default, aten.gcd.default)
def gcd(a: Tensor, b: Tensor) -> Tensor:
    """The greatest common divisor, by Euclid's algorithm; 0 of two zeros."""
    a, b = torch.broadcast_tensors(a, b)
    divisor, _ = repeat(_remainder, _EUCLID, [a.abs(), b.abs()])
    return divisor.abs()  # the least integer has no magnitude


def _remainder(k: Tensor, state: Sequence[Tensor], fixed: Sequence[Tensor]) -> Sequence[Tensor]:
    a, b = state
    done = b == 0
    return torch.where(done, a, b), torch.where(done, 0, torch.fmod(a, torch.where(done, 1, b)))


@formula(aten.lcm.default)
def lcm(a: Tensor, b: Tensor) -> Tensor:
    """The least common multiple; 0 if either is 0."""
    divisor = gcd(a, b)
    return (a // torch.where(divisor == 0, 1, divisor) * b).abs()
