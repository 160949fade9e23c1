"""How weights of 4 or 8 bits are laid out in bytes, for kernels to read them.

A row of whole numbers is cut into blocks of 64 bytes: 128 numbers of 4 bits or 64 of 8 bits. A
block is 32 words of 16 bits, little-endian. Word i holds numbers i, 32 + i, 64 + i and 96 + i of
the block (i and 32 + i of 8 bits), the first in its lowest bits. So one shift and one mask of all
the words give 32 neighbours along the row, which is a step of a product on tensor cores, and one
instruction works on two of them. The last block is filled up with zeros.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from strop.kernels.expression import cdiv
from strop.kernels.limits import GROUP_STEP

# Of each word a step takes one number.
WORDS = GROUP_STEP
WORD_BITS = 16
BLOCK_BYTES = WORDS * WORD_BITS // 8


def block_size(bits: int) -> int:
    """How many numbers are in a block of 64 bytes: 128 of 4 bits, 64 of 8 bits.

    Raises:
        ValueError: the numbers have other than 4 or 8 bits.
    """
    if bits not in (4, 8):
        raise ValueError(f"packed weights have 4 or 8 bits, not {bits}")
    return WORDS * (WORD_BITS // bits)


def packed_bytes(size: int, bits: int) -> int:
    """The bytes of a row of ``size`` numbers: size * bits / 8, filled up to whole blocks."""
    return cdiv(size, block_size(bits)) * BLOCK_BYTES


def pack(numbers: Tensor, bits: int) -> Tensor:
    """Numbers from 0 to 2^bits - 1, [rows, size] uint8, as [rows, packed_bytes(size, bits)] uint8.

    Raises:
        ValueError: the numbers have other than 4 or 8 bits.
    """
    block = block_size(bits)
    filled = F.pad(numbers, (0, -numbers.shape[1] % block))
    parts = filled.unflatten(1, (-1, WORD_BITS // bits, WORDS)).to(torch.int32)
    shifts = torch.arange(0, WORD_BITS, bits, device=numbers.device, dtype=torch.int32)
    words = (parts << shifts[:, None]).sum(2, dtype=torch.int32)
    return torch.stack((words & 255, words >> 8), 3).to(torch.uint8).flatten(1)


def unpack(packed: Tensor, bits: int, size: int) -> Tensor:
    """The numbers that ``pack`` laid out in these bytes: [rows, size] uint8.

    Raises:
        ValueError: the numbers have other than 4 or 8 bits.
    """
    block_size(bits)
    low, high = packed.unflatten(1, (-1, WORDS, 1, 2)).to(torch.int32).unbind(4)
    shifts = torch.arange(0, WORD_BITS, bits, device=packed.device, dtype=torch.int32)
    parts = ((low | high << 8) >> shifts) & (2**bits - 1)
    numbers: Tensor = parts.transpose(2, 3).to(torch.uint8).flatten(1)[:, :size]
    return numbers


def why_not(depth: int, groups: int, bits: int) -> str | None:
    """Why kernels do not take a weight of this shape; None if they do.

    Args:
        depth: the numbers of a row.
        groups: in a row; each is as long as the others.
        bits: of a number.
    """
    if bits not in (4, 8):
        return f"packed weights have 4 or 8 bits, not {bits}"
    if depth < 1:
        return "a weight without numbers has nothing to pack"
    if groups < 1 or depth % groups:
        return f"{depth} numbers cannot be cut into {groups} groups of equal length"
    if groups > 1 and depth // groups % WORDS:
        return f"a group of {depth // groups} numbers is no multiple of {WORDS}"
    return None
