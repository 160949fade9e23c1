"""Integer arithmetic that the runtime would do in floats."""

from __future__ import annotations

import torch
from torch import Tensor

from strop.compiler.lower.onnx.formulas.registry import formula

aten = torch.ops.aten
# Bits of an exponent: a larger one is not needed to overflow 64 bits, but wraps to other numbers.
_BITS = 63


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
    """The same of one number."""
    return power(torch.full_like(exponent, base), exponent)
