"""Linear layers on packed weights of 4 or 8 bits in groups; activations are float16 or bfloat16.

    y = activation(x w^T + bias) + residual,   w = (number - zero) * scale

This is weight-only quantization as in GPTQ (arXiv:2210.17323) and AWQ (arXiv:2306.00978). Numbers
are unpacked in registers and multiplied on tensor cores, sums are float32, and y is rounded once;
see ``strop.kernels.packed_tiles``. Up to 16 rows go to ``strop.kernels.gemv_packed``.

Which tile is for which sizes (rows x columns; a step is a block of 64 bytes of each column):

    rows        tile        warps  stages  for
    17 to 32    32 x 64     4      4       few rows: the bytes of the weight bound it
    33 to 64    64 x 64     4      4
    more, on sm90, in groups of 128 or whole rows, with a tile for each multiprocessor:
                128 x 128   8      3       four warps unpack while the tensor cores serve the others
    more        64 x 128    8      3       smaller groups: their sums take as many registers again
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from strop.kernels import buffers
from strop.kernels.epilogue import finish
from strop.kernels.examples import tensor
from strop.kernels.gemv_packed import launch_gemv
from strop.kernels.kernel import Bucket, Configuration, Kernel
from strop.kernels.launching import either, launch
from strop.kernels.packed_operands import packed_operands
from strop.kernels.packed_tiles import differences, packed_cost, run_of_parts
from strop.kernels.packing import packed_bytes
from strop.kernels.tiles import tile_rows_columns, tile_share, tile_sums


@triton.jit
def _step(x, row, rows, start, depth, x_stride):
    """The transpose of x[row, start : start + 32], [32, BLOCK_M]; zeros where x ends."""
    k = start + tl.arange(0, 32)
    mask = (row < rows)[None, :] & (k < depth)[:, None]
    return tl.load(x + row[None, :] * x_stride + k[:, None], mask=mask, other=0.0)


@triton.jit
def _at(values, cells, start, groups, mask, GROUP_SIZE: tl.constexpr):
    """values of the group at ``start``, [BLOCK_N]; cells are those of group 0."""
    group = 0
    if GROUP_SIZE != 0:
        # Behind the last group x is read as zeros.
        group = tl.minimum(start // GROUP_SIZE, groups - 1)
    return tl.load(values + cells + group, mask=mask, other=0)


@triton.jit
def _add_run(
    sums, words, zero, x, row, rows, start, depth, x_stride,
    FIRST: tl.constexpr, RUN: tl.constexpr, BITS: tl.constexpr,
):  # fmt: skip
    """sums plus the products of RUN parts of the block at ``start``, from part FIRST on."""
    zero = zero.to(tl.float32)[:, None]
    for part in tl.static_range(FIRST, FIRST + RUN):
        left = differences(words, zero, part, BITS, x.dtype.element_ty)
        sums = tl.dot(left, _step(x, row, rows, start + part * 32, depth, x_stride), sums)
    return sums


@triton.jit
def _product(
    x, weight, scale, zero_point, row, column,
    rows, columns, depth, groups, x_stride, weight_stride, scale_stride, zero_stride,
    BITS: tl.constexpr, GROUP_SIZE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """The sums of a tile, [BLOCK_N, BLOCK_M] float32."""
    PARTS: tl.constexpr = 16 // BITS
    RUN: tl.constexpr = run_of_parts(GROUP_SIZE, PARTS)
    there = column < columns
    words_at = weight + column[:, None] * weight_stride + tl.arange(0, 16)[None, :]
    scales_at, zeros_at = column * scale_stride, column * zero_stride
    factor = _at(scale, scales_at, 0, groups, there, GROUP_SIZE)
    zero = tl.full((BLOCK_N,), 1 << (BITS - 1), tl.uint8)
    if zero_point is not None:
        zero = _at(zero_point, zeros_at, 0, groups, there, GROUP_SIZE)
    total = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    for block in range(0, tl.cdiv(depth, PARTS * 32)):
        start = block * (PARTS * 32)
        words = tl.load(words_at + block * 16, mask=there[:, None], other=0)
        # Asked for one step ahead, since no other load is asked for while they are waited for.
        next_factor, next_zero = factor, zero
        if GROUP_SIZE != 0:
            next_factor = _at(scale, scales_at, start + PARTS * 32, groups, there, GROUP_SIZE)
        if GROUP_SIZE != 0 and zero_point is not None:
            next_zero = _at(zero_point, zeros_at, start + PARTS * 32, groups, there, GROUP_SIZE)
        for part in tl.static_range(0, PARTS, RUN):
            if part > 0:
                factor = _at(scale, scales_at, start + part * 32, groups, there, GROUP_SIZE)
            if part > 0 and zero_point is not None:
                zero = _at(zero_point, zeros_at, start + part * 32, groups, there, GROUP_SIZE)
            sums = total if GROUP_SIZE == 0 else tl.zeros_like(total)
            sums = _add_run(
                sums, words, zero, x, row, rows, start, depth, x_stride, part, RUN, BITS
            )
            total = sums if GROUP_SIZE == 0 else total + sums * factor.to(tl.float32)[:, None]
        factor, zero = next_factor, next_zero
    return total * factor.to(tl.float32)[:, None] if GROUP_SIZE == 0 else total


@triton.jit
def gemm_packed_kernel(
    x, weight, scale, zero_point, bias, residual, y,
    rows, columns, depth, groups,
    x_stride, weight_stride, scale_stride, zero_stride, residual_stride,
    ACTIVATION: tl.constexpr, BITS: tl.constexpr, GROUP_SIZE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """A program computes BLOCK_M rows of BLOCK_N columns.

    weight is [columns, words] int32. GROUP_SIZE: numbers of a group, a multiple of 32, or 0 for
    one group as long as a row.
    """
    row, column = tile_rows_columns(rows, columns, BLOCK_M, BLOCK_N, GROUP)
    sums = _product(
        x, weight, scale, zero_point, row, column,
        rows, columns, depth, groups, x_stride, weight_stride, scale_stride, zero_stride,
        BITS, GROUP_SIZE, BLOCK_M, BLOCK_N,
    )  # fmt: skip
    values = tl.trans(sums)
    finish(values, bias, residual, y, row, rows, column, columns, residual_stride, ACTIVATION)


def _tile(rows: int, columns: int, warps: int, stages: int) -> Configuration:
    return Configuration({"BLOCK_M": rows, "BLOCK_N": columns, "GROUP": 8}, warps, stages)


GEMM_PACKED = Kernel(
    "gemm_packed",
    gemm_packed_kernel,
    grid=("cdiv(rows, BLOCK_M) * cdiv(columns, BLOCK_N)",),
    buckets=(
        Bucket("rows <= 32", _tile(32, 64, 4, 4)),
        Bucket("rows <= 64", _tile(64, 64, 4, 4)),
        Bucket(
            "GROUP_SIZE % 128 == 0 and cdiv(rows, 128) * cdiv(columns, 128) >= 132",
            _tile(128, 128, 8, 3),
            since=90,
        ),
        Bucket("", _tile(64, 128, 8, 3)),
    ),
    cost=packed_cost,
    candidates=(_tile(128, 64, 4, 3), _tile(128, 128, 8, 3), _tile(128, 128, 8, 4)),
    axis="rows",
    share=tile_share(packed_cost),
    sums=tile_sums(),
    examples={
        "32 x 4096 x 4096, 4 bits in groups of 128": lambda: _example(32, 4096, 4096, 4, 128),
        "64 x 4096 x 4096, 4 bits in groups of 128": lambda: _example(64, 4096, 4096, 4, 128),
        "4096 x 4096 x 4096, 4 bits in groups of 32": lambda: _example(4096, 4096, 4096, 4, 32),
        "4096 x 14336 x 4096, 4 bits in groups of 128": lambda: _example(4096, 14336, 4096, 4, 128),
        "4096 x 4096 x 4096, 8 bits in rows": lambda: _example(4096, 4096, 4096, 8, 4096),
    },
)


def gemm_packed(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    zero_point: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    bits: int,
    activation: str,
) -> Tensor:
    """activation(x w^T + bias) + residual with w = (number - zero) * scale.

    Args:
        x: [rows, depth] float16 or bfloat16, its last stride 1.
        weight: [columns, packed_bytes(depth, bits)] uint8, as ``strop.kernels.packing.pack``
            lays it out, its last stride 1 and its rows a multiple of four bytes apart.
        scale: [columns, groups] float, its last stride 1. A group has a multiple of 32 numbers,
            or is a whole row.
        zero_point: [columns, groups] uint8, its last stride 1; 2^(bits - 1) if there is none.
        bias: [columns] float.
        residual: [rows, columns] float, its last stride 1.
        bits: 4 or 8.
        activation: one of ``strop.kernels.activation.NAMES``.

    Returns:
        [rows, columns] of the dtype of x. No rows give no rows.

    Raises:
        ValueError: the activation is unknown, or the weight has other bits, groups or bytes.
        TypeError: x is neither float16 nor bfloat16.
    """
    rows, columns = x.shape[0], scale.shape[0]
    y = buffers.empty(x, (rows, columns))
    arguments, constants = packed_operands(
        x, weight, scale, zero_point, bias, residual, y, bits, activation
    )
    either(
        "rows <= 16",
        {"rows": rows},
        lambda: launch_gemv(arguments, constants),
        lambda: launch(GEMM_PACKED, arguments, constants),
    )
    return y


def _example(rows: int, columns: int, depth: int, bits: int, group: int) -> Tensor:
    weight = tensor(columns, packed_bytes(depth, bits), dtype=torch.uint8)
    scale = tensor(columns, depth // group)
    return gemm_packed(tensor(rows, depth), weight, scale, None, None, None, bits, "none")
