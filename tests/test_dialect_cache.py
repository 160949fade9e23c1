"""The operators that read a decoder's attention mask, against what they mean place by place."""

from __future__ import annotations

from itertools import product

import pytest
import torch

import strop.compiler.ir.dialect  # noqa: F401  (registers the operators)

strop = torch.ops.strop
MASKS = [list(bits) for bits in product([0, 1], repeat=4)]


@pytest.mark.parametrize("seq", [1, 2, 4])
def test_positions_count_the_real_tokens_before(seq: int) -> None:
    found = strop.cache_positions(torch.tensor(MASKS), seq)
    for row, mask in zip(found.tolist(), MASKS):
        assert row == [max(sum(mask[: i + 1]) - 1, 0) for i in range(4 - seq, 4)]


@pytest.mark.parametrize("window", [None, 1, 3])
@pytest.mark.parametrize("seq", [1, 2, 4])
def test_a_token_sees_real_places_up_to_its_own_and_padding_sees_padding_too(
    seq: int, window: int | None
) -> None:
    found = strop.cache_mask(torch.tensor(MASKS), seq, window)
    assert found.shape == (16, 1, seq, 4)
    for rows, mask in zip(found[:, 0].tolist(), MASKS):
        for new, row in zip(range(4 - seq, 4), rows):
            first = 0 if window is None else new - window + 1
            places = [i for i in range(first, new + 1) if i >= 0 and (mask[i] or not mask[new])]
            assert row == [i in places for i in range(4)]
            assert any(row)


@pytest.mark.parametrize("seq", [1, 2, 4])
def test_the_last_real_token_is_taken(seq: int) -> None:
    x = torch.arange(4.0)[None, 4 - seq :, None].expand(16, seq, 3)
    found = strop.last_token(x, torch.tensor(MASKS))
    assert found.shape == (16, 1, 3)
    for row, mask in zip(found[:, 0, 0].tolist(), MASKS):
        real = [i for i in range(4 - seq, 4) if mask[i]]
        assert row == (real[-1] if real else 3)
