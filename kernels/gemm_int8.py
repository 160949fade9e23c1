"""Matrix products of int8 rows and int8 weights (W8A8), scaled back to floats behind them.

    gemm_int8        y = activation(s) + residual
                     s = (q weight^T) * scale[row] * weight_scale[column] + bias
    gated_gemm_int8  y = activation(s of gate) * (s of up)

Every token has its scale and every output channel has one, so both stand outside of the sum
(arXiv:2206.01861, arXiv:2211.10438). The sum is exact, in int32; all behind it is float32, and y is
rounded once.

Which tile is for which sizes (rows x columns x step; stages are loads in flight):

    rows        tile              warps  stages  for
    1 to 16     16 x 32 x 512     4      4       decoding: the bytes of the weight bound it
    17 to 64    64 x 32 x 256     4      4       short prompts, small batches
    more, but fewer than 128 tiles of 128 x 128:
                64 x 64 x 128     4      4       narrow layers: more programs than processors
    more        128 x 128 x 128   8      3       all else
                128 x 128 x 128   4      3       all else without a residual, on sm90
    any, where a row of an operand is not aligned to 16 numbers:
                64 x 32 x 32      4      2       depths that are no multiple of 16

The gated kernel has half the columns, but for narrow layers, and steps of 64 in its largest tile
where the depth is no multiple of 128. Configurations of the buckets compile for sm80, sm89 and sm90
without spills and fit their shared memory (at most 96 KiB); the candidates are larger, and some are
for sm90 alone.
"""

from __future__ import annotations

from functools import partial

import torch
import triton
import triton.language as tl
from torch import Tensor

from strop.kernels import activation as activations
from strop.kernels import buffers, dense
from strop.kernels.activation import activate
from strop.kernels.dense import UNALIGNED, tile
from strop.kernels.epilogue import add_bias, finish, scaled, store_tile
from strop.kernels.examples import tensor
from strop.kernels.kernel import Bucket, Kernel
from strop.kernels.launching import launch
from strop.kernels.tiles import (
    depth_divisor,
    left_pointers,
    product,
    right_pointers,
    tile_rows_columns,
    tile_share,
    tile_sums,
    two_products,
)

# 2^17 products of -128 and -128 are 2^31, one more than the largest int32.
DEEPEST = 2**17 - 1


@triton.jit
def gemm_int8_kernel(
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
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    sums = product(left, right, there, sums, depth, BLOCK_K, DIVISOR)
    values = scaled(sums, scale, weight_scale, row, rows, column, columns)
    finish(values, bias, residual, y, row, rows, column, columns, residual_stride, ACTIVATION)


@triton.jit
def gated_gemm_int8_kernel(
    q, scale, gate, gate_scale, up, up_scale, gate_bias, up_bias, y,
    rows, columns, depth, q_stride, gate_stride, up_stride,
    ACTIVATION: tl.constexpr, DIVISOR: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """A program computes BLOCK_M rows of BLOCK_N columns of both products, and multiplies them."""
    row, column = tile_rows_columns(rows, columns, BLOCK_M, BLOCK_N, GROUP)
    there = (row < rows)[:, None]
    left = left_pointers(q, row, q_stride, BLOCK_K)
    right = right_pointers(gate, column, columns, gate_stride, BLOCK_K)
    second = right_pointers(up, column, columns, up_stride, BLOCK_K)
    zeros = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    gate_sums, up_sums = two_products(
        left, right, second, there, zeros, zeros, depth, BLOCK_K, DIVISOR
    )
    gates = scaled(gate_sums, scale, gate_scale, row, rows, column, columns)
    gates = activate(add_bias(gates, gate_bias, column, columns), ACTIVATION)
    ups = scaled(up_sums, scale, up_scale, row, rows, column, columns)
    values = gates * add_bias(ups, up_bias, column, columns)
    store_tile(values, y, row, rows, column, columns)


def _example(
    rows: int, columns: int, depth: int, bias: bool = False, activation: str = "none"
) -> Tensor:
    q, scale = tensor(rows, depth, dtype=torch.int8), tensor(rows, dtype=torch.float32)
    weight = tensor(columns, depth, dtype=torch.int8)
    weight_scale = tensor(columns, dtype=torch.float32)
    added = tensor(columns) if bias or activation != "none" else None
    residual = tensor(rows, columns) if bias else None
    return gemm_int8(
        q, scale, weight, weight_scale, added, residual, activation, dtype=torch.float16
    )


GEMM_INT8 = Kernel(
    "gemm_int8",
    gemm_int8_kernel,
    grid=dense.GRID,
    buckets=(
        Bucket("DIVISOR % 16 + q_stride % 16 + weight_stride % 16 > 0", UNALIGNED),
        Bucket("rows <= 16", tile(16, 32, 512, 4, 4)),
        Bucket("rows <= 64", tile(64, 32, 256, 4, 4)),
        Bucket("cdiv(rows, 128) * cdiv(columns, 128) < 128", tile(64, 64, 128, 4, 4)),
        # Two blocks to a multiprocessor: one computes while the other is at its end. With a
        # residual they would spill.
        Bucket("residual_stride == 0", tile(128, 128, 128, 4, 3), since=90),
        Bucket("", tile(128, 128, 128, 8, 3)),
    ),
    cost=dense.cost,
    axis="rows",
    share=tile_share(dense.cost),
    sums=tile_sums(),
    candidates=(
        tile(128, 128, 128, 8, 3),
        tile(16, 16, 512, 4, 4),
        tile(64, 128, 128, 4, 3),
        tile(128, 128, 128, 8, 4),
        tile(128, 256, 128, 8, 3),
        tile(128, 256, 128, 8, 4),
        tile(256, 128, 128, 8, 3),
    ),
    examples={
        **dense.examples(_example),
        "4096 x 4096 x 4096, bias, residual": partial(_example, 4096, 4096, 4096, bias=True),
    },
)

GATED_GEMM_INT8 = Kernel(
    "gated_gemm_int8",
    gated_gemm_int8_kernel,
    grid=dense.GRID,
    buckets=(
        Bucket("DIVISOR % 16 + q_stride % 16 + gate_stride % 16 + up_stride % 16 > 0", UNALIGNED),
        Bucket("rows <= 16", tile(16, 16, 512, 4, 4)),
        Bucket("rows <= 64", tile(64, 16, 256, 4, 4)),
        Bucket("cdiv(rows, 128) * cdiv(columns, 64) < 128", tile(64, 64, 128, 4, 3)),
        Bucket("DIVISOR < 128", tile(128, 64, 64, 8, 4)),
        Bucket("", tile(128, 64, 128, 8, 3)),
    ),
    cost=dense.cost,
    axis="rows",
    share=tile_share(dense.cost),
    sums=tile_sums(2),
    candidates=(
        tile(128, 64, 128, 4, 3),
        tile(128, 64, 128, 8, 4),
        tile(128, 128, 128, 8, 3),
        tile(128, 128, 128, 8, 4),
    ),
    examples={
        "1 x 14336 x 4096, silu": lambda: _gated_example(1, 14336, 4096),
        "512 x 100 x 100, silu": lambda: _gated_example(512, 100, 100),
        "32 x 14336 x 4096, silu": lambda: _gated_example(32, 14336, 4096),
        "256 x 1536 x 576, silu": lambda: _gated_example(256, 1536, 576),
        "4096 x 1536 x 576, silu": lambda: _gated_example(4096, 1536, 576),
        "4096 x 14336 x 4096, silu": lambda: _gated_example(4096, 14336, 4096),
    },
)


def gemm_int8(
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
        q: [rows, depth] int8, its last stride 1.
        scale: [rows] float32.
        weight: [columns, depth] int8, its last stride 1.
        weight_scale: [columns] float.
        bias: [columns] float.
        residual: [rows, columns] float, its last stride 1.
        activation: one of ``strop.kernels.activation.NAMES``.
        dtype: of the result: float16, bfloat16 or float32.

    Returns:
        [rows, columns]. No rows give no rows; depth 0 gives sums of 0.

    Raises:
        ValueError: the activation is unknown, or the depth is above ``DEEPEST``.
        TypeError: q or the weight is not int8.
    """
    _check(q, (weight,), activation)
    (rows, depth), columns = q.shape, weight.shape[0]
    y = buffers.empty(q, (rows, columns), dtype)
    arguments = {
        "q": q, "scale": scale, "weight": weight, "weight_scale": weight_scale,
        "bias": bias, "residual": residual, "y": y,
        "rows": rows, "columns": columns, "depth": depth,
        "q_stride": q.stride(0), "weight_stride": weight.stride(0),
        "residual_stride": 0 if residual is None else residual.stride(0),
    }  # fmt: skip
    launch(GEMM_INT8, arguments, {"ACTIVATION": activation, "DIVISOR": depth_divisor(depth)})
    return y


def gated_gemm_int8(
    q: Tensor,
    scale: Tensor,
    gate: Tensor,
    gate_scale: Tensor,
    up: Tensor,
    up_scale: Tensor,
    gate_bias: Tensor | None,
    up_bias: Tensor | None,
    activation: str,
    dtype: torch.dtype,
) -> Tensor:
    """activation((q gate^T) * scale * gate_scale + gate_bias) * (the same of up, as it is).

    Args:
        q: [rows, depth] int8, its last stride 1.
        scale: [rows] float32.
        gate: [columns, depth] int8, its last stride 1.
        gate_scale: [columns] float.
        up: like ``gate``.
        up_scale: like ``gate_scale``.
        gate_bias: [columns] float.
        up_bias: [columns] float.
        activation: one of ``strop.kernels.activation.NAMES``.
        dtype: of the result: float16, bfloat16 or float32.

    Returns:
        [rows, columns]. No rows give no rows; depth 0 gives sums of 0.

    Raises:
        ValueError: the activation is unknown, or the depth is above ``DEEPEST``.
        TypeError: q or a weight is not int8.
    """
    _check(q, (gate, up), activation)
    (rows, depth), columns = q.shape, gate.shape[0]
    y = buffers.empty(q, (rows, columns), dtype)
    arguments = {
        "q": q, "scale": scale, "gate": gate, "gate_scale": gate_scale,
        "up": up, "up_scale": up_scale, "gate_bias": gate_bias, "up_bias": up_bias, "y": y,
        "rows": rows, "columns": columns, "depth": depth,
        "q_stride": q.stride(0), "gate_stride": gate.stride(0), "up_stride": up.stride(0),
    }  # fmt: skip
    launch(GATED_GEMM_INT8, arguments, {"ACTIVATION": activation, "DIVISOR": depth_divisor(depth)})
    return y


def _check(q: Tensor, weights: tuple[Tensor, ...], activation: str) -> None:
    activations.check(activation)
    for operand in (q, *weights):
        if operand.dtype != torch.int8:
            raise TypeError(f"products are of int8, but an operand is {operand.dtype}")
    if q.shape[1] > DEEPEST:
        raise ValueError(
            f"a sum of {q.shape[1]} products of int8 may not fit 32 bits; the most is {DEEPEST}"
        )


def _gated_example(rows: int, columns: int, depth: int) -> Tensor:
    q, scale = tensor(rows, depth, dtype=torch.int8), tensor(rows, dtype=torch.float32)
    weight = tensor(columns, depth, dtype=torch.int8)
    by = tensor(columns, dtype=torch.float32)
    return gated_gemm_int8(
        q, scale, weight, by, weight, by, None, None, "silu", dtype=torch.float16
    )
