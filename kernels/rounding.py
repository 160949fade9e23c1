"""Rounding within kernels."""

from __future__ import annotations

import triton
import triton.language as tl

# 1.5 * 2^23: a float32 between 2^22 and 2^23 further on has no digits behind the point.
_SHIFT: tl.constexpr = tl.constexpr(12582912.0)


@triton.jit
def to_nearest(x):
    """Whole numbers nearest to float32 values below 2^22, ties to even, as float32."""
    return (x + _SHIFT) - _SHIFT


@triton.jit
def int8_scale(top):
    """What max|row| is divided by: max / 127, and 1 for a row of zeros."""
    return tl.where(top > 0, tl.div_rn(top, 127.0), 1.0)


@triton.jit
def to_int8(x, scale):
    """round(x / scale) as int8, ties to even; |x| is at most 127 * scale."""
    return to_nearest(tl.div_rn(x, scale)).to(tl.int8)
