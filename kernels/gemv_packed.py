"""Few rows times a packed weight: the depth is split between programs, and added up in order.

    y = activation(x w^T + bias) + residual,   w = (number - zero) * scale

While a model decodes, x has few rows and the bytes of the weight bound the product, so many
programs have to read at the same time. In pass one each computes some columns over a part of the
depth and stores its sums in float32; pass two adds the sums of a cell, in the order of the parts.
There are no atomics: the same inputs give the same bits. One part needs no second pass.

Each byte of the weight is read once, for all rows. What a single pass would not move are the
partial sums: 8 * rows * columns * splits bytes; see ``splits`` for their share.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import triton
import triton.language as tl

from strop.kernels import buffers
from strop.kernels.epilogue import finish, store_tile
from strop.kernels.examples import tensor
from strop.kernels.expression import cdiv
from strop.kernels.kernel import Bucket, Configuration, Constant, Cost, Kernel
from strop.kernels.launching import launch
from strop.kernels.packed_operands import packed_operands
from strop.kernels.packed_tiles import packed_cost, packed_product
from strop.kernels.packing import block_size, packed_bytes

# Programs of 32 columns that should read at the same time: four a multiprocessor of an H100.
_PROGRAMS = 528
# A program reads at least this many blocks of each of its columns.
_FEWEST_BLOCKS = 4


@triton.jit
def gemv_packed_kernel(
    x, weight, scale, zero_point, bias, residual, y,
    rows, columns, depth, groups,
    x_stride, weight_stride, scale_stride, zero_stride, residual_stride, partial,
    ACTIVATION: tl.constexpr, BITS: tl.constexpr, GROUP_SIZE: tl.constexpr, EVEN: tl.constexpr,
    SPLITS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """A program computes BLOCK_N columns of all rows, over one of SPLITS parts of the depth.

    It stores y [rows, columns], or its sums to partial [SPLITS, rows, columns] if that is given.
    """
    split = tl.program_id(1)
    blocks = tl.cdiv(depth, 32 * (16 // BITS))
    share = tl.cdiv(blocks, SPLITS)
    row = tl.arange(0, BLOCK_M).to(tl.int64)
    column = (tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)).to(tl.int64)
    sums = packed_product(
        x, weight, scale, zero_point, row, column,
        split * share, tl.minimum((split + 1) * share, blocks),
        rows, columns, depth, groups, x_stride, weight_stride, scale_stride, zero_stride,
        BITS, GROUP_SIZE, EVEN, BLOCK_M, BLOCK_N,
    )  # fmt: skip
    values = tl.trans(sums)
    if partial is not None:
        part = partial + split.to(tl.int64) * rows * columns
        store_tile(values, part, row, rows, column, columns)
    else:
        finish(values, bias, residual, y, row, rows, column, columns, residual_stride, ACTIVATION)


@triton.jit
def gemv_packed_sum_kernel(
    partial, bias, residual, y, rows, columns, residual_stride,
    ACTIVATION: tl.constexpr, SPLITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program adds the SPLITS sums of BLOCK cells of one row, and finishes them."""
    row = (tl.program_id(1) + tl.arange(0, 1)).to(tl.int64)
    column = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    mask = (column < columns)[None, :]
    values = tl.zeros((1, BLOCK), tl.float32)
    for split in tl.static_range(SPLITS):
        cells = (row + split * rows)[:, None] * columns + column[None, :]
        values += tl.load(partial + cells, mask=mask, other=0.0)
    finish(values, bias, residual, y, row, rows, column, columns, residual_stride, ACTIVATION)


def _sum_cost(sizes: Mapping[str, int], itemsizes: Mapping[str, int]) -> Cost:
    cells, splits = sizes["rows"] * sizes["columns"], sizes["SPLITS"]
    moved = splits * itemsizes["partial"] + itemsizes["y"] + itemsizes.get("residual", 0)
    return Cost(splits * cells, moved * cells + itemsizes.get("bias", 0) * sizes["columns"])


GEMV_PACKED = Kernel(
    "gemv_packed",
    gemv_packed_kernel,
    grid=("cdiv(columns, BLOCK_N)", "SPLITS"),
    buckets=(
        Bucket("rows <= 8", Configuration({"BLOCK_M": 8, "BLOCK_N": 32}, 2, 5)),
        Bucket("", Configuration({"BLOCK_M": 16, "BLOCK_N": 32}, 2, 5)),
    ),
    cost=packed_cost,
    examples={
        "1 x 4096 x 4096, 4 bits in groups of 128": lambda: _example(1, 4096, 4096),
        "1 x 14336 x 4096, 4 bits in groups of 32": lambda: _example(1, 14336, 4096, group=32),
        "16 x 4096 x 14336, 4 bits in groups of 128": lambda: _example(16, 4096, 14336),
        "1 x 4096 x 4096, 8 bits in groups of 128": lambda: _example(1, 4096, 4096, bits=8),
    },
)

GEMV_PACKED_SUM = Kernel(
    "gemv_packed_sum",
    gemv_packed_sum_kernel,
    grid=("cdiv(columns, BLOCK)", "rows"),
    buckets=(Bucket("", Configuration({"BLOCK": 256}, 4, 1)),),
    cost=_sum_cost,
    examples={
        "1 x 4096, 4 parts": lambda: _example(1, 4096, 4096),
        "16 x 4096, 4 parts": lambda: _example(16, 4096, 14336),
    },
)


def splits(columns: int, depth: int, bits: int) -> int:
    """Into how many parts the depth is cut: enough for all multiprocessors to read at once.

    A part has at least four blocks, that is 256 bytes of each column, and for one row the sums
    cost 8 bytes a part and column. So they are at most 1/32 of the bytes of the weight.
    """
    blocks = cdiv(depth, block_size(bits))
    wanted = min(cdiv(_PROGRAMS, max(cdiv(columns, 32), 1)), blocks // _FEWEST_BLOCKS)
    # Parts are equally many blocks, so fewer may do.
    return cdiv(blocks, cdiv(blocks, max(wanted, 1))) or 1


def launch_gemv(arguments: Mapping[str, Any], constants: Mapping[str, Constant]) -> None:
    """Launch both passes, or the first if it suffices.

    Args:
        arguments: of ``gemv_packed_kernel`` by name, all but ``partial``; rows are at most 16.
        constants: ACTIVATION, BITS, GROUP_SIZE and EVEN.
    """
    rows, columns = arguments["rows"], arguments["columns"]
    parts = splits(columns, arguments["depth"], int(constants["BITS"]))
    one = {**constants, "SPLITS": parts}
    if parts == 1:
        launch(GEMV_PACKED, {**arguments, "partial": None}, one)
        return
    partial = buffers.empty(arguments["x"], (parts, rows, columns), torch.float32)
    first = {**arguments, "bias": None, "residual": None, "y": None, "partial": partial}
    launch(GEMV_PACKED, first, {**one, "ACTIVATION": "none"})
    names = ("bias", "residual", "y", "rows", "columns", "residual_stride")
    second = {"partial": partial} | {name: arguments[name] for name in names}
    launch(GEMV_PACKED_SUM, second, {"ACTIVATION": constants["ACTIVATION"], "SPLITS": parts})


def _example(rows: int, columns: int, depth: int, bits: int = 4, group: int = 128) -> None:
    weight = tensor(columns, packed_bytes(depth, bits), dtype=torch.uint8)
    scale, y = tensor(columns, depth // group), tensor(rows, columns)
    arguments, constants = packed_operands(
        tensor(rows, depth), weight, scale, None, None, None, y, bits, "none"
    )
    launch_gemv(arguments, constants)
