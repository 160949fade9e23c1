"""The layout of packed weights."""

from __future__ import annotations

import pytest
import torch

from strop.kernels.packing import block_size, pack, packed_bytes, unpack


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("size", [1, 63, 64, 65, 128, 129, 384])
def test_unpacking_gives_the_numbers_back(bits: int, size: int) -> None:
    numbers = torch.randint(2**bits, (3, size), generator=torch.Generator().manual_seed(size))
    packed = pack(numbers.to(torch.uint8), bits)
    assert packed.dtype == torch.uint8 and packed.shape == (3, packed_bytes(size, bits))
    assert torch.equal(unpack(packed, bits, size), numbers.to(torch.uint8))


@pytest.mark.parametrize("bits", [4, 8])
def test_a_word_holds_numbers_that_lie_32_apart(bits: int) -> None:
    block = block_size(bits)
    numbers = torch.arange(2 * block).remainder(2**bits).to(torch.uint8)[None]
    words = pack(numbers, bits).view(torch.int16).int() & 0xFFFF
    held = numbers.view(2, 16 // bits, 32).int()
    wanted = sum(held[:, part] << (bits * part) for part in range(16 // bits))
    assert torch.equal(words.view(2, 32), wanted)


def test_whole_blocks_waste_no_byte() -> None:
    assert packed_bytes(4096, 4) == 2048
    assert packed_bytes(4096, 8) == 4096
    assert packed_bytes(1, 4) == packed_bytes(128, 4) == 64


def test_no_rows_give_no_bytes() -> None:
    assert unpack(pack(torch.zeros(0, 100, dtype=torch.uint8), 4), 4, 100).shape == (0, 100)
    assert pack(torch.zeros(2, 0, dtype=torch.uint8), 4).shape == (2, 0)


def test_other_bits_are_refused() -> None:
    numbers = torch.zeros(1, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match="4 or 8 bits, not 3"):
        pack(numbers, 3)
    with pytest.raises(ValueError, match="4 or 8 bits, not 2"):
        unpack(numbers, 2, 8)
