"""The end of kernels of matrix products: scales, bias, activation, residual, and the store.

    y = activation(sums * scale[row] * weight_scale[column] + bias[column]) + residual

All of it is float32, and rounded once, to the dtype of y. ``row`` [BLOCK_M] and ``column``
[BLOCK_N] are numbers in 64 bits, as ``tiles.tile_rows_columns`` gives them.
"""

from __future__ import annotations

import triton
import triton.language as tl

from strop.kernels.activation import activate


@triton.jit
def add_bias(values, bias, column, columns):
    """values [BLOCK_M, BLOCK_N] float32 plus bias [columns] of any float dtype, or None."""
    if bias is not None:
        values += tl.load(bias + column, mask=column < columns, other=0.0).to(tl.float32)[None, :]
    return values


@triton.jit
def scaled(sums, scale, weight_scale, row, rows, column, columns):
    """sums * scale * weight_scale in float32: a scale for each row and one for each column."""
    row_scale = tl.load(scale + row, mask=row < rows, other=0.0).to(tl.float32)
    column_scale = tl.load(weight_scale + column, mask=column < columns, other=0.0).to(tl.float32)
    return sums.to(tl.float32) * row_scale[:, None] * column_scale[None, :]


@triton.jit
def store_tile(values, y, row, rows, column, columns):
    """Round float32 values to the dtype of y [rows, columns], contiguous, and store them."""
    mask = (row < rows)[:, None] & (column < columns)[None, :]
    cells = row[:, None] * columns + column[None, :]
    tl.store(y + cells, values.to(y.dtype.element_ty), mask=mask)


@triton.jit
def finish(
    values, bias, residual, y, row, rows, column, columns, residual_stride,
    ACTIVATION: tl.constexpr,
):  # fmt: skip
    """Store activation(values + bias) + residual: float32 all through, rounded once."""
    values = activate(add_bias(values, bias, column, columns), ACTIVATION)
    if residual is not None:
        mask = (row < rows)[:, None] & (column < columns)[None, :]
        cells = row[:, None] * residual_stride + column[None, :]
        values += tl.load(residual + cells, mask=mask, other=0.0).to(tl.float32)
    store_tile(values, y, row, rows, column, columns)
