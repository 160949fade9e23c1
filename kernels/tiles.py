"""What kernels of matrix products share: which tile a program computes, and the sum over K.

A product is x [rows, depth] times the transpose of weight [columns, depth]; a program computes a
tile of BLOCK_M rows and BLOCK_N columns of the result, in steps of BLOCK_K along the depth. Columns
behind the last are read as the last one, so that loads of the weight need no mask. Rows behind the
last are not read, since most of a tile are such where there are few: nothing of them is stored.
"""

from __future__ import annotations

from collections.abc import Mapping

import triton
import triton.language as tl

from strop.kernels.kernel import Cost, Costing, Counting

# Steps along the depth are powers of two up to this.
LONGEST_STEP = 512


def depth_divisor(depth: int) -> int:
    """The largest power of two up to ``LONGEST_STEP`` that divides the depth, 1 at least.

    A kernel leaves the masks along the depth out where its step divides this.
    """
    return min(depth & -depth, LONGEST_STEP) or LONGEST_STEP


def tile_share(cost: Costing) -> Costing:
    """What one program does, by what all of a product costs: its own tile is a product too.

    Rows behind the last are multiplied like others, but what is read for them is the last one.
    """

    def share(sizes: Mapping[str, int], itemsizes: Mapping[str, int]) -> Cost:
        tile = {"rows": sizes["BLOCK_M"], "columns": sizes["BLOCK_N"]}
        there = {name: min(size, sizes[name]) for name, size in tile.items()}
        multiplied, read = (cost({**sizes, **own}, itemsizes) for own in (tile, there))
        return Cost(multiplied.operations, read.bytes)

    return share


def tile_sums(products: int = 1) -> Counting:
    """The sums of one program: of each product a tile."""
    return lambda sizes: products * sizes["BLOCK_M"] * sizes["BLOCK_N"]


@triton.jit
def tile_rows_columns(
    rows, columns, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, GROUP: tl.constexpr
):
    """The rows and columns of this program's tile, in 64 bits; some may lie behind the last.

    Programs that run at the same time are those of GROUP tiles of rows, column by column: they
    share the rows of x and the columns of the weight in the L2 cache. With g tiles of rows and p
    programs at a time, g tiles of x and p / g of the weight are read instead of 1 and p.
    """
    column_tiles = tl.cdiv(columns, BLOCK_N)
    program = tl.program_id(0)
    row_tile, column_tile = tl.swizzle2d(
        program // column_tiles,
        program % column_tiles,
        tl.cdiv(rows, BLOCK_M),
        column_tiles,
        GROUP,
    )
    row = row_tile * BLOCK_M + tl.arange(0, BLOCK_M)
    column = column_tile * BLOCK_N + tl.arange(0, BLOCK_N)
    return row.to(tl.int64), column.to(tl.int64)


@triton.jit
def left_pointers(x, row, stride, BLOCK_K: tl.constexpr):
    """Of the first [BLOCK_M, BLOCK_K] of x."""
    return x + row[:, None] * stride + tl.arange(0, BLOCK_K)[None, :]


@triton.jit
def right_pointers(weight, column, columns, stride, BLOCK_K: tl.constexpr):
    """Of the first [BLOCK_K, BLOCK_N] of the transpose of the weight."""
    last = tl.minimum(column, columns - 1)
    return weight + last[None, :] * stride + tl.arange(0, BLOCK_K)[:, None]


@triton.jit
def product(
    x, weight, there, sums, depth,
    BLOCK_K: tl.constexpr, DIVISOR: tl.constexpr, IMPRECISE: tl.constexpr = None,
):  # fmt: skip
    """sums + x times weight.

    x and weight are the pointers of the first step, [BLOCK_M, BLOCK_K] and [BLOCK_K, BLOCK_N], of
    one dtype; ``there`` [BLOCK_M, 1] says which rows are; sums is int32 for int8 and float32 for
    floats. DIVISOR is that of ``depth_divisor``; IMPRECISE is how many products of fp8 the tensor
    cores may sum.
    """
    EVEN: tl.constexpr = DIVISOR % BLOCK_K == 0
    k = tl.arange(0, BLOCK_K)
    for start in range(0, depth, BLOCK_K):
        a = load_left(x, there, k, depth - start, EVEN)
        b = load_right(weight, k, depth - start, EVEN)
        sums = tl.dot(a, b, sums, out_dtype=sums.dtype, max_num_imprecise_acc=IMPRECISE)
        x += BLOCK_K
        weight += BLOCK_K
    return sums


@triton.jit
def two_products(
    x, gate, up, there, gate_sums, up_sums, depth, BLOCK_K: tl.constexpr, DIVISOR: tl.constexpr
):
    """gate_sums + x times gate, and up_sums + x times up, as ``product``; x is read once."""
    EVEN: tl.constexpr = DIVISOR % BLOCK_K == 0
    k = tl.arange(0, BLOCK_K)
    for start in range(0, depth, BLOCK_K):
        a = load_left(x, there, k, depth - start, EVEN)
        b = load_right(gate, k, depth - start, EVEN)
        c = load_right(up, k, depth - start, EVEN)
        gate_sums = tl.dot(a, b, gate_sums, out_dtype=gate_sums.dtype)
        up_sums = tl.dot(a, c, up_sums, out_dtype=up_sums.dtype)
        x += BLOCK_K
        gate += BLOCK_K
        up += BLOCK_K
    return gate_sums, up_sums


@triton.jit
def load_left(pointers, there, k, left, EVEN: tl.constexpr):
    """A step of x; rows that are not there and numbers behind the depth read as zero."""
    mask = there if EVEN else there & (k < left)[None, :]
    return tl.load(pointers, mask=mask, other=0.0)


@triton.jit
def load_right(pointers, k, left, EVEN: tl.constexpr):
    """A step of a weight; numbers behind the depth, of which ``left`` are left, read as zero."""
    return tl.load(pointers) if EVEN else tl.load(pointers, mask=(k < left)[:, None], other=0.0)
