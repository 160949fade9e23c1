"""Rounding within kernels."""

from __future__ import annotations

import triton
import triton.language as tl

# 1.5 * 2^23: a float32 between 2^22 and 2^23 further on has no digits behind the point.
_SHIFT: tl.constexpr = tl.constexpr(12582912.0)
_LEAST_NORMAL: tl.constexpr = tl.constexpr(2.0**-126)


@triton.jit
def to_nearest(x):
    """Whole numbers nearest to float32 values below 2^22, ties to even, as float32."""
    return (x + _SHIFT) - _SHIFT


@triton.jit
def magnitude(x):
    """The bits of |x| of float32 values, as whole numbers, which have the order of the |x|.

    NaN stands behind infinity, so that a maximum over these keeps it; one over floats drops it.
    """
    return x.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit
def largest(magnitudes, axis: tl.constexpr):
    """max|x| along an axis, as float32; NaN where one of them is."""
    return tl.max(magnitudes, axis).to(tl.float32, bitcast=True)


@triton.jit
def int8_scale(top):
    """What a row is divided by, from its max|x|: max / 127, and 1 for a row of zeros.

    So it is for a row so small that its scale would have lost digits. A row that holds infinity or
    NaN has such a scale, so that what is computed from it shows it.
    """
    return row_scale(top, tl.int8)


@triton.jit
def divided(x, scale):
    """x / scale to the nearest float32.

    ``scale`` is [ROWS, 1], so its reciprocal is computed once a row. The quotient is corrected by
    what is left over, which makes it the nearest float32 to x / scale (Markstein, "Computation of
    elementary functions on the IBM RISC System/6000 processor", 1990), in three instructions where
    a division of its own takes ten.
    """
    inverse = tl.div_rn(1.0, scale)
    quotient = x * inverse
    left_over = tl.fma(-quotient, scale, x)
    return tl.fma(left_over, inverse, quotient)


@triton.jit
def to_int8(x, scale):
    """round(x / scale) as int8, ties to even; |x| is at most 127 * scale."""
    return to_nearest(divided(x, scale)).to(tl.int8)


@triton.jit
def row_scale(top, KIND: tl.constexpr):
    """The scale of a row, as ``int8_scale``, for int8 or e4m3, whose largest value is 448."""
    largest_value: tl.constexpr = 127.0 if KIND.is_int8() else 448.0
    scale = tl.div_rn(top, largest_value)
    return tl.where(scale < _LEAST_NORMAL, 1.0, scale)


@triton.jit
def rounded(x, scale, KIND: tl.constexpr):
    """x / scale to the nearest int8 or e4m3, ties to even, within -448 and 448."""
    if KIND.is_int8():
        values = to_int8(x, scale)
    else:
        # Rounding of the quotient may lead above the largest value, which would become NaN.
        values = tl.clamp(divided(x, scale), -448.0, 448.0).to(KIND)
    return values
