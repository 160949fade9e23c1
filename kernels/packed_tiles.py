"""What kernels on packed weights share: a tile of the product of x and a weight in groups.

    y[row, column] = sum over groups of scale[column, group] *
                     sum over the group of x[row, k] * (number[column, k] - zero[column, group])

The differences of whole numbers are exact in float16 and bfloat16, so what tensor cores multiply
is exact, and scales of any size multiply sums in float32. The weight is the left operand, which
tensor cores take from registers: unpacked numbers are not stored to shared memory again. So tiles
are [BLOCK_N columns, BLOCK_M rows] here.
"""

from __future__ import annotations

from collections.abc import Mapping

import triton
import triton.language as tl

from strop.kernels.kernel import Cost
from strop.kernels.packing import packed_bytes

# The words of 16 bits in a block: one step along the depth for each part of a word.
_WORDS: tl.constexpr = tl.constexpr(32)


@triton.jit
def _differences_float16(words, zero, PART: tl.constexpr, BITS: tl.constexpr):
    """In float16, where bits 0 to 7 of 1024 are units, and bits 4 to 7 of 64 are too."""
    # So only parts in the upper half of a word need a shift.
    if PART * BITS >= 8:
        words = words >> 8
    if PART * BITS % 8 == 4:
        large = (words & 0xF0) | 0x5400
        zero += 64.0
    else:
        large = (words & ((1 << BITS) - 1)) | 0x6400
        zero += 1024.0
    return large.to(tl.float16, bitcast=True) - zero.to(tl.float16)


@triton.jit
def _differences_bfloat16(words, zero, PART: tl.constexpr, BITS: tl.constexpr):
    """In bfloat16, where bits 0 to 6 of 128 are units; 8 bits need the digits of float32."""
    numbers = (words >> (PART * BITS)) & ((1 << BITS) - 1)
    if BITS == 4:
        large = (numbers | 0x4300).to(tl.bfloat16, bitcast=True)
        found = large - (zero + 128.0).to(tl.bfloat16)
    else:
        large = (numbers.to(tl.int32) | 0x4B000000).to(tl.float32, bitcast=True)
        found = (large - (zero + 8388608.0)).to(tl.bfloat16)
    return found


@triton.jit
def differences(words, zero, part: tl.constexpr, bits: tl.constexpr, dtype: tl.constexpr):
    """number - zero of one part of words [BLOCK_N, 32] int16; zero is [BLOCK_N, 1] float32.

    Whole numbers become floats by setting the last digits of a power of two, which is subtracted
    again together with zero: neither a conversion nor a rounding is needed.
    """
    if dtype == tl.float16:
        found = _differences_float16(words, zero, part, bits)
    else:
        found = _differences_bfloat16(words, zero, part, bits)
    return found


@triton.jit
def _of_group(values, column, columns, stride, group):
    """values[column, group] in float32, [BLOCK_N, 1]; values is [columns, groups]."""
    found = tl.load(values + column * stride + group, mask=column < columns, other=0)
    return found.to(tl.float32)[:, None]


@triton.jit
def _step(x, row, rows, start, depth, x_stride, EVEN: tl.constexpr):
    """The transpose of x[row, start : start + 32], [32, BLOCK_M]; zeros where x ends."""
    k = start + tl.arange(0, _WORDS)
    mask = (row < rows)[None, :]
    if not EVEN:
        mask = mask & (k < depth)[:, None]
    return tl.load(x + row[None, :] * x_stride + k[:, None], mask=mask, other=0.0)


@triton.constexpr_function
def run_of_parts(group_size: int, parts: int) -> int:
    """How many parts of a block in turn belong to one group, wherever the block begins."""
    block = parts * 32
    if group_size % block == 0:
        return parts
    return group_size // 32 if block % group_size == 0 else 1


@triton.jit
def packed_product(
    x, weight, scale, zero_point, row, column, first, last,
    rows, columns, depth, groups, x_stride, weight_stride, scale_stride, zero_stride,
    BITS: tl.constexpr, GROUP_SIZE: tl.constexpr, EVEN: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """The sums [BLOCK_N, BLOCK_M] in float32 over the blocks from ``first`` to before ``last``.

    x is [rows, depth]; weight is [columns, words] int16, as ``strop.kernels.packing`` lays it out;
    ``row`` and ``column`` are those of the tile, in 64 bits. GROUP_SIZE: numbers of a group, a
    multiple of 32, or 0 for one group as long as a row. EVEN: the last block of a row is full.
    """
    PARTS: tl.constexpr = 16 // BITS
    RUN: tl.constexpr = run_of_parts(GROUP_SIZE, PARTS)
    there = (column < columns)[:, None]
    words_at = weight + column[:, None] * weight_stride + tl.arange(0, _WORDS)[None, :]
    total = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    for block in range(first, last):
        words = tl.load(words_at + block * _WORDS, mask=there, other=0)
        for run in tl.static_range(PARTS // RUN):
            start = (block * PARTS + run * RUN) * _WORDS
            group = 0
            if GROUP_SIZE != 0:
                # Behind the last group x is read as zeros.
                group = tl.minimum(start // GROUP_SIZE, groups - 1)
            if zero_point is not None:
                zero = _of_group(zero_point, column, columns, zero_stride, group)
            else:
                zero = tl.full((BLOCK_N, 1), 1 << (BITS - 1), tl.float32)
            sums = total if GROUP_SIZE == 0 else tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
            for part in tl.static_range(RUN):
                left = differences(words, zero, run * RUN + part, BITS, x.dtype.element_ty)
                right = _step(x, row, rows, start + part * _WORDS, depth, x_stride, EVEN)
                sums = tl.dot(left, right, sums)
            if GROUP_SIZE == 0:
                total = sums
            else:
                factor = _of_group(scale, column, columns, scale_stride, group)
                total += sums * factor
    if GROUP_SIZE == 0:
        total *= _of_group(scale, column, columns, scale_stride, 0)
    return total


def packed_cost(sizes: Mapping[str, int], itemsizes: Mapping[str, int]) -> Cost:
    """Of a product of x and a packed weight: whatever is read or stored, once."""
    rows, columns, depth = sizes["rows"], sizes["columns"], sizes["depth"]
    packed = packed_bytes(depth, sizes["BITS"])
    grid = sizes["groups"] * (itemsizes["scale"] + itemsizes.get("zero_point", 0))
    stored = itemsizes.get("y", 0) + itemsizes.get("residual", 0)
    stored += itemsizes.get("partial", 0) * sizes.get("SPLITS", 1)
    fixed = columns * (packed + grid + itemsizes.get("bias", 0))
    return Cost(
        2 * rows * columns * depth,
        fixed + rows * (depth * itemsizes["x"] + columns * stored),
    )
