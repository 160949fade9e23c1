"""The rotary kernel against the dialect's operator in float64."""

from __future__ import annotations

import pytest
import torch
from kernel_cases import close, device, float_dtypes, guarded, random, strided
from torch import Tensor

from strop.compiler.ir.dialect.rotary import rotary as operator
from strop.kernels.rotary import rotary


def angles(batch: int, sequence: int, half: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin of any angles."""
    turned = 3 * random(batch, sequence, half, seed=7)
    return turned.cos().to(dtype), turned.sin().to(dtype)


def reference(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """[batch, heads, sequence, size], in float64."""
    return operator(x.double(), cos.double(), sin.double(), x.shape[1])


@pytest.mark.parametrize("dtype", float_dtypes(), ids=str)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("size", "half"), [(2, 1), (10, 5), (32, 16), (40, 20), (64, 32), (64, 8), (65, 17), (256, 128)]
)
def test_heads_are_rotated(
    dtype: torch.dtype, packed: bool, size: int, half: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = random(2, 3, 5, size, dtype=dtype)
    cos, sin = angles(2, 5, half, dtype)
    with guarded(monkeypatch):
        y = rotary(x, cos, sin, packed)
    wanted = reference(x, cos, sin)
    assert y.dtype == dtype and y.is_contiguous()
    close(y, wanted.transpose(1, 2).flatten(2) if packed else wanted)


@pytest.mark.parametrize("packed", [False, True])
def test_views_with_any_strides_are_read_where_they_lie(
    packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = strided(random(2, 7, 3 * 4 * 16, dtype=torch.float16))
    # The keys of a joint projection, every second token, the heads backwards in memory.
    x = everything[:, ::2, 64:128].unflatten(2, (4, 16)).transpose(1, 2)
    cos, sin = angles(2, 8, 6, torch.float32)
    cos, sin = strided(cos)[:, ::2], strided(sin, gap=5)[:, :4]
    with guarded(monkeypatch):
        y = rotary(x, cos, sin, packed)
    wanted = reference(x, cos, sin)
    close(y, wanted.transpose(1, 2).flatten(2) if packed else wanted)


@pytest.mark.parametrize(("batch", "heads", "sequence"), [(1, 1, 1), (3, 5, 13), (1, 33, 2)])
def test_programs_that_are_filled_in_part(
    batch: int, heads: int, sequence: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = random(batch, heads, sequence, 12)
    cos, sin = angles(1, sequence, 6, torch.float32)
    with guarded(monkeypatch):
        y = rotary(x, cos, sin, packed=False)
    close(y, reference(x, cos, sin))


def test_the_angles_of_one_sequence_are_those_of_all() -> None:
    x = random(4, 2, 5, 8)
    cos, sin = angles(1, 5, 4, torch.float32)
    found = rotary(x, cos, sin, packed=True)
    assert torch.equal(found, rotary(x, cos.repeat(4, 1, 1), sin.repeat(4, 1, 1), packed=True))


@pytest.mark.parametrize("dtype", float_dtypes(), ids=str)
def test_large_numbers_do_not_overflow_on_their_way(dtype: torch.dtype) -> None:
    top = torch.finfo(dtype).max
    x = torch.tensor([top, top / 2], dtype=dtype, device=device()).reshape(1, 1, 1, 2)
    cos = torch.full((1, 1, 1), 0.5, dtype=dtype, device=device())
    close(rotary(x, cos, cos, packed=True), reference(x, cos, cos).reshape(1, 1, 2))


def test_channels_that_pass_through_are_the_same() -> None:
    x = random(1, 2, 3, 24, dtype=torch.float16)
    x[0, 0, 0, 8:11] = torch.tensor([torch.inf, -torch.inf, torch.nan])
    y = rotary(x, *angles(1, 3, 4, torch.float16), packed=False)
    torch.testing.assert_close(y[..., 8:], x[..., 8:], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("shape", [(0, 2, 3, 8), (2, 2, 0, 8)])
def test_no_tokens_give_no_tokens(shape: tuple[int, int, int, int]) -> None:
    x = random(*shape)
    cos, sin = angles(1, shape[2], 4, torch.float32)
    assert rotary(x, cos, sin, packed=False).shape == shape
    assert rotary(x, cos, sin, packed=True).shape == (shape[0], shape[2], 16)


@pytest.mark.parametrize("half", [0, 5])
def test_more_channels_than_there_are_cannot_be_rotated(half: int) -> None:
    cos, sin = angles(1, 2, half, torch.float32)
    with pytest.raises(ValueError, match=f"{2 * half} channels cannot be rotated in heads of 8"):
        rotary(random(1, 1, 2, 8), cos, sin, packed=False)
