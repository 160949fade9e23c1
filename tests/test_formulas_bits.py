"""Formulas that read bits, and reduce over segments, against torch's operators."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from file_tools import File
from torch import Tensor

import strop.compiler.ir.dialect  # noqa: F401
from strop.compiler.lower.onnx.formulas import FORMULAS
from strop.compiler.util.errors import UnsupportedError

aten = torch.ops.aten
INF, NAN = math.inf, math.nan
FLOATS = [torch.float32, torch.float64]


def every_magnitude(dtype: torch.dtype) -> Tensor:
    """Numbers of every exponent, powers of two and their neighbours, and what is no number."""
    info = torch.finfo(dtype)
    lowest = round(math.log2(info.smallest_normal * info.eps))
    powers = 2.0 ** torch.arange(lowest, round(math.log2(info.max)), dtype=torch.float64)
    odd = torch.tensor([0.0, -0.0, INF, -INF, NAN, info.max, info.min, 1, -2], dtype=torch.float64)
    near = [powers * (1 + share * info.eps) for share in (-1, -0.5, 0, 1, 1234)]
    return torch.cat([*near, *(-n for n in near), powers * 1.37, odd]).to(dtype)


def same(found: Tensor, wanted: Tensor) -> None:
    """To the last bit, the sign of zero included."""
    torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(found.signbit() | found.isnan(), wanted.signbit() | wanted.isnan())


@pytest.mark.parametrize("dtype", FLOATS)
def test_mantissa_and_exponent(dtype: torch.dtype) -> None:
    values = every_magnitude(dtype)
    found, wanted = FORMULAS[aten.frexp.Tensor](values), torch.frexp(values)
    same(found[0], wanted[0])
    assert torch.equal(found[1], wanted[1])


@pytest.mark.parametrize("dtype", [*FLOATS, torch.bfloat16])
def test_neighbours(dtype: torch.dtype) -> None:
    values = every_magnitude(dtype)
    for other in (values, values.flip(0), *(torch.tensor(v, dtype=dtype) for v in (0, INF, -INF))):
        same(FORMULAS[aten.nextafter.default](values, other), torch.nextafter(values, other))


@pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)]
)
def test_bits_in_files(dtype: torch.dtype) -> None:
    values = every_magnitude(dtype)
    values = values[values.abs() > torch.finfo(dtype).smallest_normal]
    parts = File(lambda x: torch.frexp(x), (values[:4],), {"x": {0: "n"}}).run(values)
    next_one = File(torch.nextafter, (values[:4], values[1:5]), {n: {0: "n"} for n in "xy"})
    same(torch.from_numpy(parts[0]), torch.frexp(values)[0])
    assert torch.equal(torch.from_numpy(parts[1]), torch.frexp(values)[1])
    other = values.roll(1)
    same(torch.from_numpy(next_one.run(values, other)[0]), torch.nextafter(values, other))


REDUCTIONS = ("max", "min", "sum", "mean", "prod")


@pytest.mark.parametrize("initial", [None, 0.0, 2.0])
@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_segments(reduce: str, initial: float | None) -> None:
    target = aten.segment_reduce.default
    rows = torch.randn(7, 3, dtype=torch.float64)
    for lengths in ([2, 0, 5], [7], [0, 0, 7], [1] * 7):
        counts = torch.tensor(lengths)
        ends = torch.cat([torch.tensor([0]), counts.cumsum(0)])
        for where in ({"lengths": counts}, {"offsets": ends}):
            given: dict[str, Any] = {"initial": initial, **where}
            found, wanted = (f(rows, reduce, **given) for f in (FORMULAS[target], target))
            torch.testing.assert_close(found, wanted, equal_nan=True)
    deep, counts = torch.randn(2, 3, 4), torch.tensor([[1, 2], [3, 0]])
    given = {"lengths": counts, "axis": 1, "initial": initial}
    found, wanted = (f(deep, reduce, **given) for f in (FORMULAS[target], target))
    torch.testing.assert_close(found, wanted, equal_nan=True)


def test_a_part_in_no_segment_is_left_out() -> None:
    target, rows = aten.segment_reduce.default, torch.arange(7.0)
    found = FORMULAS[target](rows, "sum", offsets=torch.tensor([1, 3, 5]), unsafe=True)
    assert found.tolist() == [1 + 2, 3 + 4]
    assert FORMULAS[target](rows, "sum", lengths=torch.tensor([2, 1]), unsafe=True).tolist() == [
        1,
        2,
    ]


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_segments_in_files_at_every_number_of_rows(reduce: str) -> None:
    file = File(
        lambda x, y: torch.segment_reduce(x, reduce, lengths=y, unsafe=True),
        (torch.randn(4, 3), torch.tensor([1, 3])),
        {"x": {0: "rows"}},
    )
    for rows in range(2, 8):
        file.agrees(torch.randn(rows, 3), torch.tensor([1, rows - 1]))


def test_neighbours_among_numbers_of_16_bits_are_not_computed_in_wider_ones() -> None:
    values = torch.tensor([1.0, 2.0, -2.0, 0.0, 65504.0, 6e-8, -INF, NAN]).half()
    for other in (values.roll(1), torch.full_like(values, INF)):
        file = File(torch.nextafter, (values, other))
        same(torch.from_numpy(file.run(values, other)[0]), torch.nextafter(values, other))
    brain = values.bfloat16()
    with pytest.raises(UnsupportedError, match="bfloat16, for which the runtime has no kernels"):
        File(torch.nextafter, (brain, brain.roll(1)))
