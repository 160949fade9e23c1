"""Matrix products in float16 and bfloat16, with bias, activation and residual behind them.

    gemm        y = activation(x weight^T + bias) + residual
    gated_gemm  y = activation(x gate^T + gate_bias) * (x up^T + up_bias)

Products are summed in float32, and all that follows is float32 too: y is rounded once. The gated
kernel computes both products in one program, so x is read once and neither product is stored
(SwiGLU and GeGLU, arXiv:2002.05202). The form of the loop is that of Triton's tutorial on matrix
multiplication.

Which tile is for which sizes (rows x columns x step; stages are loads in flight):

    rows        tile             warps  stages  for
    1 to 16     16 x 32 x 256    4      4       decoding: the bytes of the weight bound it
    17 to 64    64 x 32 x 128    4      4       short prompts, small batches
    more, but fewer than 128 tiles of 128 x 128:
                64 x 64 x 64     4      4       narrow layers: more programs than processors
    more        128 x 128 x 64   8      3       all else
    any, where a row of an operand is not aligned to 16 numbers:
                64 x 32 x 32     4      2       depths that are no multiple of 16

The gated kernel has half the columns, but for narrow layers, where that would spill on sm80.
Configurations of the buckets compile for sm80, sm89 and sm90 without spills and fit their shared
memory (at most 96 KiB); the candidates are larger, and some are for sm90 alone.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from strop.kernels import activation as activations
from strop.kernels import buffers, dense
from strop.kernels.activation import activate
from strop.kernels.dense import UNALIGNED, tile
from strop.kernels.epilogue import add_bias, finish, store_tile
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


@triton.jit
def gemm_kernel(
    x, weight, bias, residual, y,
    rows, columns, depth, x_stride, weight_stride, residual_stride,
    ACTIVATION: tl.constexpr, DIVISOR: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """A program computes BLOCK_M rows of BLOCK_N columns; see ``strop.kernels.tiles``."""
    row, column = tile_rows_columns(rows, columns, BLOCK_M, BLOCK_N, GROUP)
    there = (row < rows)[:, None]
    left = left_pointers(x, row, x_stride, BLOCK_K)
    right = right_pointers(weight, column, columns, weight_stride, BLOCK_K)
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    sums = product(left, right, there, sums, depth, BLOCK_K, DIVISOR)
    finish(sums, bias, residual, y, row, rows, column, columns, residual_stride, ACTIVATION)


@triton.jit
def gated_gemm_kernel(
    x, gate, up, gate_bias, up_bias, y,
    rows, columns, depth, x_stride, gate_stride, up_stride,
    ACTIVATION: tl.constexpr, DIVISOR: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """A program computes BLOCK_M rows of BLOCK_N columns of both products, and multiplies them."""
    row, column = tile_rows_columns(rows, columns, BLOCK_M, BLOCK_N, GROUP)
    there = (row < rows)[:, None]
    left = left_pointers(x, row, x_stride, BLOCK_K)
    right = right_pointers(gate, column, columns, gate_stride, BLOCK_K)
    second = right_pointers(up, column, columns, up_stride, BLOCK_K)
    zeros = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    gates, ups = two_products(left, right, second, there, zeros, zeros, depth, BLOCK_K, DIVISOR)
    gates = activate(add_bias(gates, gate_bias, column, columns), ACTIVATION)
    values = gates * add_bias(ups, up_bias, column, columns)
    store_tile(values, y, row, rows, column, columns)


def _example(
    rows: int, columns: int, depth: int, bias: bool = False, activation: str = "none"
) -> Tensor:
    added = tensor(columns) if bias or activation != "none" else None
    residual = tensor(rows, columns) if bias else None
    return gemm(tensor(rows, depth), tensor(columns, depth), added, residual, activation)


GEMM = Kernel(
    "gemm",
    gemm_kernel,
    grid=dense.GRID,
    buckets=(
        Bucket("DIVISOR % 16 + x_stride % 16 + weight_stride % 16 > 0", UNALIGNED),
        Bucket("rows <= 16", tile(16, 32, 256, 4, 4)),
        Bucket("rows <= 64", tile(64, 32, 128, 4, 4)),
        Bucket("cdiv(rows, 128) * cdiv(columns, 128) < 128", tile(64, 64, 64, 4, 4)),
        Bucket("", tile(128, 128, 64, 8, 3)),
    ),
    cost=dense.cost,
    axis="rows",
    share=tile_share(dense.cost),
    sums=tile_sums(),
    candidates=(
        tile(16, 16, 256, 4, 4),
        tile(64, 128, 64, 4, 3),
        tile(128, 128, 64, 4, 3),
        tile(128, 128, 64, 8, 4),
        tile(128, 256, 64, 8, 3),
        tile(128, 256, 64, 8, 4),
        tile(256, 128, 64, 8, 3),
    ),
    examples=dense.examples(_example),
)

GATED_GEMM = Kernel(
    "gated_gemm",
    gated_gemm_kernel,
    grid=dense.GRID,
    buckets=(
        Bucket("DIVISOR % 16 + x_stride % 16 + gate_stride % 16 + up_stride % 16 > 0", UNALIGNED),
        Bucket("rows <= 16", tile(16, 16, 256, 4, 4)),
        Bucket("rows <= 64", tile(64, 16, 128, 4, 4)),
        Bucket("cdiv(rows, 128) * cdiv(columns, 64) < 128", tile(64, 64, 64, 4, 3)),
        Bucket("", tile(128, 64, 64, 8, 3)),
    ),
    cost=dense.cost,
    axis="rows",
    share=tile_share(dense.cost),
    sums=tile_sums(2),
    candidates=(
        tile(128, 64, 64, 4, 3),
        tile(128, 64, 64, 8, 4),
        tile(128, 128, 64, 8, 3),
        tile(128, 128, 64, 8, 4),
    ),
    examples={
        "1 x 14336 x 4096, silu": lambda: _gated_example(1, 14336, 4096),
        "512 x 100 x 100, silu": lambda: _gated_example(512, 100, 100),
        "32 x 14336 x 4096, silu": lambda: _gated_example(32, 14336, 4096),
        "256 x 1536 x 576, silu": lambda: _gated_example(256, 1536, 576),
        "4096 x 14336 x 4096, silu": lambda: _gated_example(4096, 14336, 4096),
    },
)


def gemm(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, activation: str
) -> Tensor:
    """activation(x weight^T + bias) + residual.

    Args:
        x: [rows, depth] float16 or bfloat16, its last stride 1.
        weight: [columns, depth] of the dtype of x, its last stride 1.
        bias: [columns] float.
        residual: [rows, columns] float, its last stride 1.
        activation: one of ``strop.kernels.activation.NAMES``.

    Returns:
        [rows, columns] of the dtype of x. No rows give no rows; depth 0 gives sums of 0.

    Raises:
        ValueError: the activation is unknown.
        TypeError: x is neither float16 nor bfloat16, or the weight is of another dtype.
    """
    _check(x, (weight,), activation)
    (rows, depth), columns = x.shape, weight.shape[0]
    y = buffers.empty(x, (rows, columns))
    arguments = {
        "x": x, "weight": weight, "bias": bias, "residual": residual, "y": y,
        "rows": rows, "columns": columns, "depth": depth,
        "x_stride": x.stride(0), "weight_stride": weight.stride(0),
        "residual_stride": 0 if residual is None else residual.stride(0),
    }  # fmt: skip
    launch(GEMM, arguments, {"ACTIVATION": activation, "DIVISOR": depth_divisor(depth)})
    return y


def gated_gemm(
    x: Tensor,
    gate: Tensor,
    up: Tensor,
    gate_bias: Tensor | None,
    up_bias: Tensor | None,
    activation: str,
) -> Tensor:
    """activation(x gate^T + gate_bias) * (x up^T + up_bias).

    Args:
        x: [rows, depth] float16 or bfloat16, its last stride 1.
        gate: [columns, depth] of the dtype of x, its last stride 1.
        up: the same.
        gate_bias: [columns] float.
        up_bias: [columns] float.
        activation: one of ``strop.kernels.activation.NAMES``.

    Returns:
        [rows, columns] of the dtype of x. No rows give no rows; depth 0 gives sums of 0.

    Raises:
        ValueError: the activation is unknown.
        TypeError: x is neither float16 nor bfloat16, or a weight is of another dtype.
    """
    _check(x, (gate, up), activation)
    (rows, depth), columns = x.shape, gate.shape[0]
    y = buffers.empty(x, (rows, columns))
    arguments = {
        "x": x, "gate": gate, "up": up, "gate_bias": gate_bias, "up_bias": up_bias, "y": y,
        "rows": rows, "columns": columns, "depth": depth,
        "x_stride": x.stride(0), "gate_stride": gate.stride(0), "up_stride": up.stride(0),
    }  # fmt: skip
    launch(GATED_GEMM, arguments, {"ACTIVATION": activation, "DIVISOR": depth_divisor(depth)})
    return y


def _check(x: Tensor, weights: tuple[Tensor, ...], activation: str) -> None:
    activations.check(activation)
    if x.dtype not in (torch.float16, torch.bfloat16):
        # Tensor cores would round the numbers of float32 to TF32, with 10 digits instead of 23.
        raise TypeError(f"products are of float16 or bfloat16, but x is {x.dtype}")
    for weight in weights:
        if weight.dtype != x.dtype:
            raise TypeError(f"x is {x.dtype}, but a weight is {weight.dtype}")


def _gated_example(rows: int, columns: int, depth: int) -> Tensor:
    weight = tensor(columns, depth)
    return gated_gemm(tensor(rows, depth), weight, weight, None, None, "silu")
