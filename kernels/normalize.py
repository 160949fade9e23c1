"""Normalization of rows within kernels."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def normalize(values, mask, columns, eps, RMS: tl.constexpr):
    """LayerNorm, or RMSNorm where RMS holds, of each row of float32 [ROWS, BLOCK].

    The numbers outside of ``mask``, behind ``columns``, have to be zero.
    """
    if not RMS:
        mean = tl.sum(values, 1)[:, None] / columns
        values = tl.where(mask, values - mean, 0.0)
    variance = tl.sum(values * values, 1)[:, None] / columns
    return values * tl.div_rn(1.0, tl.sqrt_rn(variance + eps))


@triton.jit
def affine(values, weight, bias, column, mask):
    """values * weight + bias, float32 [ROWS, BLOCK]; weight and bias may be None.

    An address for each row, and not one for all, lets a thread load as many bytes at once as it
    does of the row, in the same order.
    """
    cell = tl.broadcast_to(column, values.shape)
    if weight is not None:
        values *= tl.load(weight + cell, mask=mask, other=0.0).to(tl.float32)
    if bias is not None:
        values += tl.load(bias + cell, mask=mask, other=0.0).to(tl.float32)
    return values
