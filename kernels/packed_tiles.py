"""What kernels on packed weights share: tiles of numbers as floats, groups, and what it all costs.

    y[row, column] = sum over groups of scale[column, group] *
                     sum over the group of x[row, k] * (number[column, k] - zero[column, group])

The differences of whole numbers are exact in float16 and bfloat16, so what tensor cores multiply
is exact, and scales of any size multiply sums in float32. The weight is the left operand, which
tensor cores take from registers: unpacked numbers are not stored to shared memory again. So tiles
of sums are [BLOCK_N columns, BLOCK_M rows].

Kernels read a block (see ``strop.kernels.packing``) as 16 words of 32 bits, and a part of it, 32
neighbours along the depth, with one shift and one mask of all of them: two numbers at a time.
"""

from __future__ import annotations

from collections.abc import Mapping

import triton
import triton.language as tl

from strop.kernels.kernel import Cost
from strop.kernels.packing import packed_bytes


@triton.constexpr_function
def run_of_parts(group_size: int, parts: int) -> int:
    """How many parts of a block in turn belong to one group, wherever the block begins.

    Args:
        group_size: a multiple of 32 numbers, or 0 for one group as long as a row.
        parts: of a block, 32 numbers each.
    """
    block = parts * 32
    if group_size % block == 0:
        return parts
    return group_size // 32 if block % group_size == 0 else 1


@triton.jit
def _pairs(words, dtype: tl.constexpr):
    """The two floats of 16 bits in each word, the lower half first, along the last axis."""
    low = words.to(tl.int16).to(dtype, bitcast=True)
    high = (words >> 16).to(tl.int16).to(dtype, bitcast=True)
    return tl.interleave(low, high)


@triton.jit
def _differences_float16(words, zero, PART: tl.constexpr, BITS: tl.constexpr):
    """In float16, where bits 0 to 7 of 1024 are units, and bits 4 to 7 of 64 are too."""
    # So only parts in the upper half of 16 bits need a shift.
    if PART * BITS >= 8:
        words = words >> 8
    if PART * BITS % 8 == 4:
        large = (words & 0x00F000F0) | 0x54005400
        zero += 64.0
    else:
        large = (words & (((1 << BITS) - 1) * 0x10001)) | 0x64006400
        zero += 1024.0
    return _pairs(large, tl.float16) - zero.to(tl.float16)


@triton.jit
def _difference_float32(number, zero):
    """Of 8 bits, which bfloat16 has too few digits for: in float32, where bit 0 of 2^23 is 1."""
    large = (number | 0x4B000000).to(tl.float32, bitcast=True)
    return (large - (zero + 8388608.0)).to(tl.bfloat16)


@triton.jit
def _differences_bfloat16(words, zero, PART: tl.constexpr, BITS: tl.constexpr):
    """In bfloat16, where bits 0 to 6 of 128 are units."""
    numbers = (words >> (PART * BITS)) & (((1 << BITS) - 1) * 0x10001)
    if BITS == 4:
        found = _pairs(numbers | 0x43004300, tl.bfloat16) - (zero + 128.0).to(tl.bfloat16)
    else:
        low = _difference_float32(numbers & 0xFF, zero)
        found = tl.interleave(low, _difference_float32(numbers >> 16, zero))
    return found


@triton.jit
def differences(words, zero, part: tl.constexpr, bits: tl.constexpr, dtype: tl.constexpr):
    """number - zero of one part of words [..., BLOCK_N, 16] int32: [..., BLOCK_N, 32] in dtype.

    zero is [..., BLOCK_N, 1] float32. Whole numbers become floats by setting the last digits of a
    power of two, which is subtracted again together with zero: nothing is converted or rounded.
    """
    if dtype == tl.float16:
        found = _differences_float16(words, zero, part, bits)
    else:
        found = _differences_bfloat16(words, zero, part, bits)
    return found


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
