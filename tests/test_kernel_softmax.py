"""The softmax kernel against torch in float64."""

from __future__ import annotations

import math

import pytest
import torch
from kernel_cases import SIZES, close, device, float_dtypes, guarded, random, strided

from strop.kernels import softmax as module
from strop.kernels.softmax import softmax


@pytest.mark.parametrize("dtype", float_dtypes(), ids=str)
@pytest.mark.parametrize("columns", [*SIZES, 129, 255, 257, 512, 1023, 2049])
def test_rows_sum_to_one(dtype: torch.dtype, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = strided(4 * random(5, columns, dtype=dtype))
    with guarded(monkeypatch):
        y = softmax(x)
    assert y.dtype == dtype
    close(y, torch.softmax(x.double(), 1))


@pytest.mark.parametrize("rows", [1, 15, 16, 17])
def test_rows_that_share_a_program(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x = random(rows, 33) * torch.linspace(0, 50, rows, device=device())[:, None]
    with guarded(monkeypatch):
        y = softmax(x)
    for found, wanted in zip(y, torch.softmax(x.double(), 1), strict=True):
        close(found, wanted, tolerance=1e-5)


@pytest.mark.parametrize("dtype", float_dtypes(), ids=str)
@pytest.mark.parametrize("columns", [9, 16, 31])
def test_a_wide_row_is_made_in_pieces(
    dtype: torch.dtype, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WIDEST_ROW", 8)
    monkeypatch.setattr(module, "PIECE", 8)
    x = strided(4 * random(3, columns, dtype=dtype))
    # The maximum in the last piece, in the first, and nothing but -inf in the first.
    x[0, -1], x[1, 0], x[2, :8] = 30.0, 30.0, -math.inf
    with guarded(monkeypatch):
        y = softmax(x)
    for found, wanted in zip(y, torch.softmax(x.double(), 1), strict=True):
        close(found, wanted)


def test_the_widest_row_at_once_and_the_next_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in (module.WIDEST_ROW, module.WIDEST_ROW + 1):
        x = 4 * random(2, columns)
        with guarded(monkeypatch):
            y = softmax(x)
        close(y, torch.softmax(x.double(), 1))


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("dtype", float_dtypes(), ids=str)
def test_rows_without_a_softmax_are_nan_as_in_torch(
    wide: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if wide:
        monkeypatch.setattr(module, "WIDEST_ROW", 4)
        monkeypatch.setattr(module, "PIECE", 4)
    x = random(5, 11, dtype=dtype)
    x[0], x[1, 9], x[2, 2], x[3, :10] = -math.inf, math.nan, math.inf, -math.inf
    y = softmax(x)
    wanted = torch.softmax(x.double(), 1)
    assert torch.equal(y.isnan(), wanted.isnan())
    assert y[:3].isnan().all()
    close(y[3:], wanted[3:])


@pytest.mark.parametrize("dtype", float_dtypes(), ids=str)
def test_the_greatest_numbers_do_not_overflow(dtype: torch.dtype) -> None:
    x = torch.full((2, 8), torch.finfo(dtype).max, dtype=dtype, device=device())
    x[1, 1:] = torch.finfo(dtype).min
    close(softmax(x), torch.softmax(x.double(), 1))


@pytest.mark.parametrize("shape", [(0, 8), (3, 0)])
def test_nothing_gives_nothing(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    with guarded(monkeypatch):
        assert softmax(random(*shape)).shape == shape
