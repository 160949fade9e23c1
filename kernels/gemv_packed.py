"""Few rows times a packed weight: the depth is split between programs, and added up in order.

    y = activation(x w^T + bias) + residual,   w = (number - zero) * scale

While a model decodes, x has few rows and the bytes of the weight bound the product, so as many
warps as possible have to read at the same time. Each warp of a program computes the same columns
over a slice of the depth of its own, and the program adds the slices. Where there are too few
columns for all multiprocessors, the depth is split between programs as well: pass one stores sums
in float32, and pass two adds the sums of a cell in the order of the parts. There are no atomics:
the same inputs give the same bits.

Each byte of the weight is read once, for all rows. What a single pass would not move are the
partial sums, 8 * rows * columns * splits bytes; see ``splits`` for their share.
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
from strop.kernels.packed_tiles import differences, packed_cost, run_of_parts
from strop.kernels.packing import block_size, packed_bytes

# Of an H100.
_MULTIPROCESSORS = 132
# A program reads at least this many blocks of each of its 32 columns: 64 KiB.
_FEWEST_BLOCKS = 32


@triton.jit
def _step(x, row, rows, start, depth, x_stride):
    """The transposes of x[row, start : start + 32] for each start, [SLICES, 32, BLOCK_M]."""
    k = start[:, None] + tl.arange(0, 32)[None, :]
    mask = (row < rows)[None, None, :] & (k < depth)[:, :, None]
    return tl.load(x + row[None, None, :] * x_stride + k[:, :, None], mask=mask, other=0.0)


@triton.jit
def _at(values, cells, start, groups, mask, GROUP_SIZE: tl.constexpr):
    """values of the group at each start, [SLICES, BLOCK_N]; cells are those of group 0."""
    group = tl.zeros_like(start)
    if GROUP_SIZE != 0:
        # Behind the last group x is read as zeros.
        group = tl.minimum(start // GROUP_SIZE, groups - 1)
    return tl.load(values + cells + group[:, None], mask=mask, other=0)


@triton.jit
def _add_run(
    sums, words, zero, x, row, rows, start, depth, x_stride,
    FIRST: tl.constexpr, RUN: tl.constexpr, BITS: tl.constexpr,
):  # fmt: skip
    """sums plus the products of RUN parts of the blocks at ``start``, from part FIRST on."""
    zero = zero.to(tl.float32)[:, :, None]
    for part in tl.static_range(FIRST, FIRST + RUN):
        left = differences(words, zero, part, BITS, x.dtype.element_ty)
        sums = tl.dot(left, _step(x, row, rows, start + part * 32, depth, x_stride), sums)
    return sums


@triton.jit
def _slices(
    x, weight, scale, zero_point, row, column, first, share,
    rows, columns, depth, groups, x_stride, weight_stride, scale_stride, zero_stride,
    BITS: tl.constexpr, GROUP_SIZE: tl.constexpr,
    SLICES: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """The sums [SLICES, BLOCK_N, BLOCK_M] float32 over ``share`` blocks from each of ``first``."""
    PARTS: tl.constexpr = 16 // BITS
    RUN: tl.constexpr = run_of_parts(GROUP_SIZE, PARTS)
    there = (column < columns)[None, :]
    words_at = weight + (column * weight_stride)[None, :, None] + tl.arange(0, 16)[None, None, :]
    scales_at, zeros_at = (column * scale_stride)[None, :], (column * zero_stride)[None, :]
    start = first * (PARTS * 32)
    factor = _at(scale, scales_at, start, groups, there, GROUP_SIZE)
    zero = tl.full((SLICES, BLOCK_N), 1 << (BITS - 1), tl.uint8)
    if zero_point is not None:
        zero = _at(zero_point, zeros_at, start, groups, there, GROUP_SIZE)
    total = tl.zeros((SLICES, BLOCK_N, BLOCK_M), tl.float32)
    for step in range(0, share):
        start = (first + step) * (PARTS * 32)
        mask = (there & (start < depth)[:, None])[:, :, None]
        words = tl.load(words_at + ((first + step) * 16)[:, None, None], mask=mask, other=0)
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
            total = sums if GROUP_SIZE == 0 else total + sums * factor.to(tl.float32)[:, :, None]
        factor, zero = next_factor, next_zero
    return total * factor.to(tl.float32)[:, :, None] if GROUP_SIZE == 0 else total


@triton.jit
def gemv_packed_kernel(
    x, weight, scale, zero_point, bias, residual, y,
    rows, columns, depth, groups,
    x_stride, weight_stride, scale_stride, zero_stride, residual_stride, partial,
    ACTIVATION: tl.constexpr, BITS: tl.constexpr, GROUP_SIZE: tl.constexpr, SPLITS: tl.constexpr,
    SLICES: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """A program computes BLOCK_N columns of BLOCK_M rows, over one of SPLITS parts of the depth.

    Each of its warps reads one of SLICES slices of that part. The program stores y
    [rows, columns], or its sums to partial [SPLITS, rows, columns] if that is given.
    """
    split = tl.program_id(1)
    share = tl.cdiv(tl.cdiv(depth, 32 * (16 // BITS)), SPLITS * SLICES)
    row = (tl.program_id(2) * BLOCK_M + tl.arange(0, BLOCK_M)).to(tl.int64)
    column = (tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)).to(tl.int64)
    first = (split * SLICES + tl.arange(0, SLICES)) * share
    sums = _slices(
        x, weight, scale, zero_point, row, column, first, share,
        rows, columns, depth, groups, x_stride, weight_stride, scale_stride, zero_stride,
        BITS, GROUP_SIZE, SLICES, BLOCK_M, BLOCK_N,
    )  # fmt: skip
    values = tl.trans(tl.sum(sums, 0))
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


def _tile(rows: int, columns: int, slices: int, stages: int) -> Configuration:
    """A warp for each slice."""
    return Configuration({"BLOCK_M": rows, "BLOCK_N": columns, "SLICES": slices}, slices, stages)


def _share(sizes: Mapping[str, int], itemsizes: Mapping[str, int]) -> Cost:
    own = {"rows": sizes["BLOCK_M"], "columns": sizes["BLOCK_N"], "SPLITS": 1}
    return packed_cost({**sizes, **own, "depth": sizes["depth"] // sizes["SPLITS"]}, itemsizes)


def _sum_cost(sizes: Mapping[str, int], itemsizes: Mapping[str, int]) -> Cost:
    cells, splits = sizes["rows"] * sizes["columns"], sizes["SPLITS"]
    moved = splits * itemsizes["partial"] + itemsizes["y"] + itemsizes.get("residual", 0)
    return Cost(splits * cells, moved * cells + itemsizes.get("bias", 0) * sizes["columns"])


GEMV_PACKED = Kernel(
    "gemv_packed",
    gemv_packed_kernel,
    grid=("cdiv(columns, BLOCK_N)", "SPLITS", "cdiv(rows, BLOCK_M)"),
    buckets=(
        # Short groups take more registers: a scale for each part of a block.
        Bucket("rows <= 8 and GROUP_SIZE % 128 != 0", _tile(8, 16, 8, 4)),
        Bucket("GROUP_SIZE % 128 != 0", _tile(16, 16, 8, 4)),
        Bucket("rows <= 8 and columns <= 8192", _tile(8, 32, 8, 3)),
        Bucket("rows <= 8", _tile(8, 32, 4, 4)),
        Bucket("columns <= 8192", _tile(16, 32, 8, 3)),
        Bucket("", _tile(16, 32, 4, 4)),
    ),
    cost=packed_cost,
    axis="rows",
    share=_share,
    candidates=(
        _tile(8, 16, 8, 4),
        _tile(8, 16, 4, 4),
        _tile(16, 16, 8, 4),
        _tile(16, 16, 4, 4),
    ),
    examples={
        "1 x 4096 x 4096, 4 bits in groups of 128": lambda: _example(1, 4096, 4096),
        "1 x 14336 x 4096, 4 bits in groups of 32": lambda: _example(1, 14336, 4096, group=32),
        "16 x 4096 x 4096, 4 bits in groups of 32": lambda: _example(16, 4096, 4096, group=32),
        "1 x 14336 x 4096, 4 bits in groups of 128": lambda: _example(1, 14336, 4096),
        "1 x 1024 x 14336, 4 bits in groups of 128": lambda: _example(1, 1024, 14336),
        "16 x 4096 x 14336, 4 bits in groups of 128": lambda: _example(16, 4096, 14336),
        "16 x 14336 x 4096, 4 bits in groups of 128": lambda: _example(16, 14336, 4096),
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
        "1 x 1024, 2 parts": lambda: _example(1, 1024, 14336),
        "16 x 1024, 2 parts": lambda: _example(16, 1024, 14336),
    },
)


def splits(columns: int, depth: int, bits: int) -> int:
    """Into how many parts the depth is cut: one, unless multiprocessors would have nothing to do.

    A second pass takes about as long as a program needs for 64 KiB, so a part is no smaller. For
    each row and part the sums of a column cost 8 bytes, which is 1/256 of the bytes of the part.
    It is a power of two, so that a build compiles few variants.
    """
    tiles = max(cdiv(columns, 32), 1)
    parts = cdiv(depth, block_size(bits)) // _FEWEST_BLOCKS
    return 1 << max(min(_MULTIPROCESSORS // tiles, parts), 1).bit_length() - 1


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
