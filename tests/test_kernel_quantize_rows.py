"""Rounding of rows to int8 against the dialect's operator, to the last bit."""

from __future__ import annotations

import math

import pytest
import torch
from kernel_cases import SIZES, device, float_dtypes, guarded, need_fused_products, random, strided
from torch import Tensor

from strop.compiler.ir.dialect.kernels.int8 import quantize_rows as operator
from strop.kernels import quantize_rows as module
from strop.kernels.quantize_rows import quantize_rows


def reference(x: Tensor) -> tuple[Tensor, Tensor]:
    """Of the dialect; on the CPU, since torch multiplies by 1/127 on a GPU."""
    q, scale = operator(x.cpu())
    return q, scale


def same(x: Tensor) -> None:
    q, scale = quantize_rows(x)
    wanted_q, wanted_scale = reference(x)
    assert torch.equal(scale.cpu(), wanted_scale)
    assert torch.equal(q.cpu(), wanted_q)


@pytest.mark.parametrize("dtype", float_dtypes(), ids=str)
@pytest.mark.parametrize("columns", [*SIZES, 127, 128, 129, 1023, 1025])
def test_rows_are_rounded_exactly(
    dtype: torch.dtype, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with guarded(monkeypatch):
        same(strided(random(5, columns, dtype=dtype)))


@pytest.mark.parametrize("rows", [1, 15, 16, 17])
def test_rows_that_share_a_program_have_scales_of_their_own(
    rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = random(rows, 40) * torch.logspace(-20, 20, rows, device=device())[:, None]
    with guarded(monkeypatch):
        same(x)


def test_ties_go_to_the_even_number() -> None:
    x = torch.tensor([[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -126.5, -127.0]], device=device())
    q, scale = quantize_rows(x)
    assert scale.item() == 1
    assert q.tolist() == [[127, 0, 2, 2, 0, -2, -126, -127]]


def test_numbers_next_to_ties_are_rounded_as_their_quotients_are() -> None:
    need_fused_products()
    scale = random(64).abs() + 0.01
    ties = (torch.arange(127, device=device()) + 0.5) * scale[:, None]
    near = [ties.nextafter(ties + step) for step in (-1, 0, 1)]
    same(torch.cat([*near, 127 * scale[:, None]], 1))


@pytest.mark.parametrize("columns", [9, 24])
def test_a_wide_row_is_rounded_in_pieces(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WIDEST_ROW", 8)
    monkeypatch.setattr(module, "PIECE", 8)
    x = strided(random(3, columns, dtype=torch.float16))
    x[0, -1] = 50.0
    with guarded(monkeypatch):
        same(x)


def test_the_widest_row_at_once_and_the_next_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    with guarded(monkeypatch):
        same(random(2, module.WIDEST_ROW, dtype=torch.float16))
        same(random(2, module.WIDEST_ROW + 1, dtype=torch.float16))


def test_rows_of_zeros_and_rows_too_small_for_a_scale_have_scale_one() -> None:
    x = torch.zeros(3, 8, device=device())
    x[1, 3], x[2, 3] = 2.0**-149, 127 * 2.0**-127
    q, scale = quantize_rows(x)
    assert scale.tolist() == [1, 1, 1]
    assert not q.any()


@pytest.mark.parametrize("dtype", float_dtypes(), ids=str)
def test_the_least_and_the_greatest_numbers(dtype: torch.dtype) -> None:
    x = torch.zeros(3, 8, dtype=dtype, device=device())
    x[0, 0], x[0, 7] = torch.finfo(dtype).max, -torch.finfo(dtype).max
    x[1] = torch.finfo(dtype).max
    x[2, 5] = 127 * 2.0**-126 if dtype.itemsize == 4 else torch.finfo(dtype).smallest_normal * 127
    same(x)


@pytest.mark.parametrize("wide", [False, True])
def test_infinity_and_nan_show_in_the_scale_of_their_row_alone(
    wide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if wide:
        monkeypatch.setattr(module, "WIDEST_ROW", 4)
        monkeypatch.setattr(module, "PIECE", 4)
    x = random(4, 12)
    x[0, 3], x[1, 8], x[2, 0] = math.inf, math.nan, -math.nan
    x[2, 1] = math.inf
    _, scale = quantize_rows(x)
    assert scale[0] == math.inf
    assert scale[1:3].isnan().all()
    assert torch.equal(scale[3:].cpu(), reference(x[3:])[1])


@pytest.mark.parametrize("shape", [(0, 8), (3, 0)])
def test_nothing_to_round(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    with guarded(monkeypatch):
        q, scale = quantize_rows(random(*shape))
    assert q.shape == shape
    assert scale.tolist() == [1.0] * shape[0]
