"""Matrix products of e4m3 rows and e4m3 weights (FP8), and the rounding of rows to e4m3.

    quantize_rows_fp8  scale = max|x| / 448,  q = x / scale to the nearest e4m3, ties to even
    gemm_fp8           y = activation((q weight^T) * scale[row] * weight_scale[column] + bias)
                           + residual

Every token has its scale and every output channel has one.
E4M3 is that of arXiv:2209.05433, table 1. Tensor cores of sm90 sum products of fp8 with 14 digits
(arXiv:2412.19437, section 3.3.2), so sums of BLOCK_K products are added up in float32 outside of
them; all behind the sum is float32 too, and y is rounded once. It runs on sm89 and later.

Which tile is for which sizes (rows x columns x step; stages are loads in flight):

    rows        tile              warps  stages  for
    1 to 16     16 x 32 x 512     4      4       decoding: the bytes of the weight bound it
    17 to 64    64 x 32 x 256     4      4       short prompts, small batches
    more, but fewer than 128 tiles of 128 x 128:
                64 x 64 x 128     4      4       narrow layers: more programs than processors
    more        128 x 128 x 128   8      3       all else
    any, where a row of an operand is not aligned to 16 numbers:
                64 x 32 x 32      4      2       depths that are no multiple of 16
"""

from __future__ import annotations

from functools import partial

import torch
import triton
import triton.language as tl
from torch import Tensor

from strop.kernels import activation as activations
from strop.kernels import buffers, dense
from strop.kernels.dense import UNALIGNED, tile
from strop.kernels.epilogue import finish, scaled
from strop.kernels.examples import tensor
from strop.kernels.kernel import Bucket, Kernel
from strop.kernels.launching import launch
from strop.kernels.quantize_rows import (
    QUANTIZE_ROWS,
    quantize_rows_kernel,
    quantized,
    row_cost,
)
from strop.kernels.rows import ROW_BUCKETS, WIDTHS
from strop.kernels.tiles import (
    depth_divisor,
    left_pointers,
    product,
    right_pointers,
    tile_rows_columns,
    tile_share,
    tile_sums,
)


@triton.jit
def gemm_fp8_kernel(
    q, scale, weight, weight_scale, bias, residual, y,
    rows, columns, depth, q_stride, weight_stride, residual_stride,
    ACTIVATION: tl.constexpr, DIVISOR: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """A program computes BLOCK_M rows of BLOCK_N columns; see ``strop.kernels.tiles``."""
    row, column = tile_rows_columns(rows, columns, BLOCK_M, BLOCK_N, GROUP)
    there = (row < rows)[:, None]
    left = left_pointers(q, row, q_stride, BLOCK_K)
    right = right_pointers(weight, column, columns, weight_stride, BLOCK_K)
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    sums = product(left, right, there, sums, depth, BLOCK_K, DIVISOR, IMPRECISE=BLOCK_K)
    values = scaled(sums, scale, weight_scale, row, rows, column, columns)
    finish(values, bias, residual, y, row, rows, column, columns, residual_stride, ACTIVATION)


def _rows_example(rows: int, columns: int) -> None:
    quantize_rows_fp8(tensor(rows, columns))


def _example(
    rows: int, columns: int, depth: int, bias: bool = False, activation: str = "none"
) -> Tensor:
    q, weight = (tensor(n, depth, dtype=torch.float8_e4m3fn) for n in (rows, columns))
    scale, weight_scale = (tensor(n, dtype=torch.float32) for n in (rows, columns))
    added = tensor(columns) if bias or activation != "none" else None
    residual = tensor(rows, columns) if bias else None
    return gemm_fp8(q, scale, weight, weight_scale, added, residual, activation, torch.float16)


GEMM_FP8 = Kernel(
    "gemm_fp8",
    gemm_fp8_kernel,
    grid=dense.GRID,
    buckets=(
        Bucket("DIVISOR % 16 + q_stride % 16 + weight_stride % 16 > 0", UNALIGNED),
        Bucket("rows <= 16", tile(16, 32, 512, 4, 4)),
        Bucket("rows <= 64", tile(64, 32, 256, 4, 4)),
        Bucket("cdiv(rows, 128) * cdiv(columns, 128) < 128", tile(64, 64, 128, 4, 4)),
        Bucket("", tile(128, 128, 128, 8, 3)),
    ),
    cost=dense.cost,
    axis="rows",
    share=tile_share(dense.cost),
    sums=tile_sums(),
    candidates=(
        tile(16, 16, 512, 4, 4),
        tile(64, 128, 128, 4, 3),
        tile(128, 64, 128, 4, 4),
        tile(128, 128, 128, 8, 4),
        tile(128, 256, 128, 8, 3),
        tile(256, 128, 128, 8, 3),
    ),
    examples=dense.examples(_example),
    capability=89,
)


# The kernel that rounds to int8 too: it does what the dtype of q says.
QUANTIZE_ROWS_FP8 = Kernel(
    "quantize_rows_fp8",
    quantize_rows_kernel,
    grid=QUANTIZE_ROWS.grid,
    buckets=ROW_BUCKETS,
    cost=row_cost,
    examples={f"4096 x {n}": partial(_rows_example, 4096, n) for n in WIDTHS},
    capability=89,
)


def quantize_rows_fp8(x: Tensor) -> tuple[Tensor, Tensor]:
    """Round rows to e4m3.

    Args:
        x: [rows, columns] float16, bfloat16 or float32, its last stride 1.

    Returns:
        (q, scale): q [rows, columns] float8_e4m3fn, scale [rows] float32. Rows of zeros, of small
        numbers, of infinity and NaN have the scales that ``quantize_rows`` gives them.
    """
    return quantized(QUANTIZE_ROWS_FP8, x, torch.float8_e4m3fn)


def gemm_fp8(
    q: Tensor,
    scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
    dtype: torch.dtype,
) -> Tensor:
    """activation((q weight^T) * scale * weight_scale + bias) + residual.

    Args:
        q: [rows, depth] e4m3, its last stride 1.
        scale: [rows] float32.
        weight: [columns, depth] e4m3, its last stride 1.
        weight_scale: [columns] float.
        bias: [columns] float.
        residual: [rows, columns] float, its last stride 1.
        activation: one of ``strop.kernels.activation.NAMES``.
        dtype: of the result: float16, bfloat16 or float32.

    Returns:
        [rows, columns]. No rows give no rows; depth 0 gives sums of 0.

    Raises:
        ValueError: the activation is unknown.
        TypeError: q or the weight is not e4m3.
    """
    activations.check(activation)
    for operand in (q, weight):
        if operand.dtype != torch.float8_e4m3fn:
            raise TypeError(f"products are of float8_e4m3fn, but an operand is {operand.dtype}")
    (rows, depth), columns = q.shape, weight.shape[0]
    y = buffers.empty(q, (rows, columns), dtype)
    arguments = {
        "q": q, "scale": scale, "weight": weight, "weight_scale": weight_scale,
        "bias": bias, "residual": residual, "y": y,
        "rows": rows, "columns": columns, "depth": depth,
        "q_stride": q.stride(0), "weight_stride": weight.stride(0),
        "residual_stride": 0 if residual is None else residual.stride(0),
    }  # fmt: skip
    launch(GEMM_FP8, arguments, {"ACTIVATION": activation, "DIVISOR": depth_divisor(depth)})
    return y
