"""The embedding kernel against sums of rows and their norms in float64."""

from __future__ import annotations

from functools import reduce
from operator import add

import pytest
import torch
import torch.nn.functional as F
from kernel_cases import SIZES, close, device, float_dtypes, guarded, random, strided
from torch import Tensor

from strop.compiler.ir.dialect.kernels.embedding import embedding_norm as operator
from strop.kernels.embedding_norm import embedding_norm

EPS = 1e-5
TABLES = (7, 5, 2)


def tables(count: int, columns: int, dtype: torch.dtype) -> list[Tensor]:
    """Of different heights."""
    return [strided(random(n, columns, dtype=dtype, seed=n)) for n in TABLES[:count]]


def indices(count: int, rows: int, dtype: torch.dtype = torch.int64) -> list[Tensor]:
    """The first and the last row of each table are among them."""
    steps = torch.arange(rows, device=device())
    return [((steps + n - 1) % n).to(dtype) for n in TABLES[:count]]


def summed(found: list[Tensor], places: list[Tensor]) -> Tensor:
    """In float64."""
    return reduce(add, [t.double()[i.long()] for t, i in zip(found, places, strict=True)])


@pytest.mark.parametrize("dtype", float_dtypes(), ids=str)
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("rms", [False, True])
def test_sums_are_normalized(
    dtype: torch.dtype, count: int, rms: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, place = tables(count, 123, dtype), indices(count, 9)
    weight = random(123, dtype=dtype, seed=1)
    bias = None if rms else random(123, dtype=dtype, seed=2)
    with guarded(monkeypatch):
        y = embedding_norm(place, table, weight, bias, EPS, rms=rms)
    total = summed(table, place)
    wanted = (
        F.rms_norm(total, (123,), weight.double(), EPS)
        if bias is None
        else F.layer_norm(total, (123,), weight.double(), bias.double(), EPS)
    )
    assert y.dtype == dtype
    close(y, wanted)


@pytest.mark.parametrize("rms", [False, True])
def test_it_is_the_operator_of_the_dialect(rms: bool) -> None:
    table, place = tables(3, 64, torch.float32), indices(3, 9)
    weight = random(64, seed=1)
    bias = None if rms else random(64, seed=2)
    y = embedding_norm(place, table, weight, bias, EPS, rms=rms)
    close(y, operator(place, table, weight, bias, EPS, rms).double())


@pytest.mark.parametrize("columns", SIZES)
@pytest.mark.parametrize("rows", [1, 17])
def test_sums_without_a_norm(rows: int, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    table, place = tables(2, columns, torch.float16), indices(2, rows)
    with guarded(monkeypatch):
        y = embedding_norm(place, table, None, None, EPS, rms=True, norm=False)
    close(y, summed(table, place))


def test_one_table_without_a_norm_gives_its_rows_as_they_are() -> None:
    table, place = tables(1, 64, torch.float16), indices(1, 20)
    y = embedding_norm(place, table, None, None, EPS, rms=False, norm=False)
    assert torch.equal(y, table[0][place[0]])


def test_indices_of_32_bits_and_indices_that_are_all_the_same() -> None:
    table = tables(2, 65, torch.float32)
    place = [*indices(1, 6, torch.int32), torch.ones(1, dtype=torch.int64, device=device())]
    place[1] = place[1].expand(6)
    y = embedding_norm(place, table, None, None, EPS, rms=False)
    close(y, F.layer_norm(summed(table, place), (65,), eps=EPS))


@pytest.mark.parametrize("outside", [-1, 7, 2**40])
def test_an_index_outside_of_its_table_makes_its_row_nan(outside: int) -> None:
    table, place = tables(2, 5, torch.float16), indices(2, 4)
    place[0][2] = outside
    y = embedding_norm(place, table, None, None, EPS, rms=False)
    assert y[2].isnan().all()
    rest = torch.tensor([0, 1, 3], device=device())
    wanted = summed(table, [i[rest] for i in place])
    close(y[rest], F.layer_norm(wanted, (5,), eps=EPS))


def test_large_rows_do_not_overflow_in_their_sum() -> None:
    table = [torch.full((2, 8), 60000.0, dtype=torch.float16, device=device())] * 3
    place = [torch.tensor([0, 1], device=device())] * 3
    y = embedding_norm(place, table, None, None, EPS, rms=True)
    close(y, torch.ones(2, 8, dtype=torch.float64, device=device()))


def test_no_rows_give_no_rows() -> None:
    place = [torch.zeros(0, dtype=torch.int64, device=device())]
    assert embedding_norm(place, tables(1, 8, torch.float32), None, None, EPS, rms=True).shape == (
        0,
        8,
    )


@pytest.mark.parametrize("count", [0, 4])
def test_the_number_of_tables_is_one_to_three(count: int) -> None:
    table, place = tables(1, 8, torch.float32) * count, indices(1, 2) * count
    with pytest.raises(ValueError, match=f"{count} tables: one to 3"):
        embedding_norm(place, table, None, None, EPS, rms=True)
