"""Whole numbers of a few bits as ONNX Runtime's ``com.microsoft`` operators hold them.

``MatMulNBits`` and ``GatherBlockQuantized`` share one layout: rows are cut into blocks, a power of
two of values long and at least 16; numbers are packed into bytes, the first one lowest. Their
kernels were run for 2, 4 and 8 bits; numbers of 3, or of 5 to 7 bits are stored in 4 or 8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional as F

from strop.compiler.ir.dialect.registry import packed_bits
from strop.compiler.ir.nodes import shape_of
from strop.compiler.lower.onnx.emitter import Emitter
from strop.compiler.lower.onnx.refusal import NotLowered

_LEAST_BLOCK, _LARGEST_BLOCK = 16, 256


@dataclass(frozen=True)
class Packed:
    """A weight in blocks.

    Attributes:
        values: uint8 [rows, blocks, bytes of a block].
        scales: float [rows, blocks].
        zero_points: uint8 [rows, bytes of the zero points of a row]; None where all are half of
            the range.
        bits: of a number as it is stored.
        block: values in a block.
    """

    values: ir.Value
    scales: ir.Value
    zero_points: ir.Value | None
    bits: int
    block: int


def packed(
    on: Emitter, weight: Any, scale: Any, zero_point: Any, bits: int, dtype: torch.dtype
) -> Packed:
    """The initializers of a weight; shared by all operators that read it on the same grid.

    Scales are of the given dtype: that of what the weight is multiplied with.

    Raises:
        NotLowered: the groups of the weight cannot be cut into blocks.
    """
    size, groups = int(shape_of(weight)[1]), int(shape_of(scale)[1])
    block, wide = block_of(size, groups), packed_bits(bits)
    shift = 0 if zero_point is not None else (1 << (wide - 1)) - (1 << (bits - 1))
    name = f"{weight.target if weight.op == 'get_attr' else weight.name}.int{wide}"
    key = (weight, scale, zero_point, bits)

    def values(weight: Tensor, scale: Tensor, *zero: Tensor) -> Tensor:
        numbers = torch.ops.strop.whole_numbers(weight, scale, *(zero or (None,)), bits) + shift
        padded = F.pad(numbers, (0, -size % block))
        return together(padded.unflatten(1, (-1, block)), wide)

    def scales(scale: Tensor) -> Tensor:
        return by_block(scale, size, block).to(dtype)

    def zeros(zero: Tensor) -> Tensor:
        return together(by_block(zero.to(torch.uint8), size, block), wide)

    sources = [n for n in (weight, scale, zero_point) if n is not None]
    made = on.once(("values", *key), lambda: on.derived(sources, values, name))
    scaled = on.once(("scales", *key, dtype), lambda: on.derived([scale], scales, f"{name}.scales"))
    zeroed = None
    if zero_point is not None:
        zeroed = on.once(("zeros", *key), lambda: on.derived([zero_point], zeros, f"{name}.zeros"))
    return Packed(made, scaled, zeroed, wide, block)


def block_of(size: int, groups: int) -> int:
    """Values in a block: the largest power of two that divides a group.

    Where a row is one group, its last block may be padded.

    Raises:
        NotLowered: a group is no multiple of 16.
    """
    group = size // groups
    block = min(group & -group, _LARGEST_BLOCK)
    if block >= _LEAST_BLOCK:
        return block
    if groups == 1:
        return _LEAST_BLOCK
    raise NotLowered(f"the runtime packs groups of 16 values and their multiples, not of {group}")


def by_block(values: Tensor, size: int, block: int) -> Tensor:
    """What [rows, groups] holds, for each block of rows of ``size`` values."""
    group, blocks = size // values.shape[1], -(-size // block)
    return values.repeat_interleave(-(-group // block), dim=1)[:, :blocks]


def together(numbers: Tensor, bits: int) -> Tensor:
    """Numbers along the last axis packed into bytes, the first one lowest: uint8."""
    each = 8 // bits
    parts = F.pad(numbers, (0, -numbers.shape[-1] % each)).unflatten(-1, (-1, each))
    made: Tensor = parts[..., 0].clone()
    for place in range(1, each):
        made |= parts[..., place] << (bits * place)
    return made
