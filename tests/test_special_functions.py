"""Formulas of special functions, held in eager torch to the operators over wide grids."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor

from strop.compiler.lower.onnx.formulas import FORMULAS
from strop.compiler.lower.onnx.formulas.gamma import BERNOULLI

aten = torch.ops.aten
INF, NAN = math.inf, math.nan
FLOATS = (torch.float32, torch.float64)
INTEGERS = (torch.int64, torch.uint8, torch.bool)
CLOSE = {torch.float32: (1e-4, 1e-5), torch.float64: (1e-9, 1e-10)}
SIZES = torch.logspace(-40, 4, 89, dtype=torch.float64)
EDGES = torch.tensor(
    [0.0, -0.0, 0.5, 1, 2, 2.09, 3, 5, 8, 103.892, 104, 1e5, 1e30, INF], dtype=torch.float64
)
LINE = torch.cat([
    torch.linspace(-100, 100, 2001, dtype=torch.float64), SIZES, -SIZES, EDGES, -EDGES,
    torch.tensor([NAN], dtype=torch.float64),
])  # fmt: skip
UNARY = (
    "i0", "special_airy_ai", "special_bessel_j0", "special_bessel_j1", "special_bessel_y0",
    "special_bessel_y1", "special_erfcx", "special_i0e", "special_i1", "special_i1e",
    "special_log_ndtr", "special_modified_bessel_i0", "special_modified_bessel_i1",
    "special_modified_bessel_k0", "special_modified_bessel_k1",
    "special_scaled_modified_bessel_k0", "special_scaled_modified_bessel_k1",
    "special_spherical_bessel_j0",
)  # fmt: skip


def agree(found: Tensor, wanted: Tensor) -> None:
    """Also in dtype and in the places of NaN and infinities."""
    rtol, atol = CLOSE[wanted.dtype]
    torch.testing.assert_close(found, wanted, rtol=rtol, atol=atol, equal_nan=True)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_number(name: str, dtype: torch.dtype) -> None:
    target, values = getattr(aten, name).default, LINE.to(dtype)
    agree(FORMULAS[target](values), target(values))


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("name", UNARY)
def test_of_an_integer_the_result_is_float32(name: str, dtype: torch.dtype) -> None:
    target, values = getattr(aten, name).default, torch.tensor([0, 1, 2, 7, 40]).to(dtype)
    agree(FORMULAS[target](values), target(values))


def grid(first: list[float], second: list[float], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Every pair."""
    a, b = (torch.tensor(v, dtype=torch.float64).to(dtype) for v in (first, second))
    one, other = torch.meshgrid(a, b, indexing="ij")
    return one.contiguous(), other.contiguous()


def line(start: float, end: float, count: int) -> list[float]:
    return list(torch.linspace(start, end, count, dtype=torch.float64).tolist())


def powers(start: float, end: float, count: int) -> list[float]:
    return list(torch.logspace(start, end, count, dtype=torch.float64).tolist())


EXPONENTS = [*line(-2, 40, 85), 1.0001, 200, 1e5, 1e15, 1e30, INF, -INF, NAN]
# Halves would cancel but for rounding errors, and those are torch's own.
SHIFTS = [*line(-30.2431, 60, 181), -2, -0.0, 0, 1e-30, 1e-3, 1e10, -1000.7, INF, -INF, NAN]


@pytest.mark.parametrize("dtype", FLOATS)
def test_zeta(dtype: torch.dtype) -> None:
    exponent, shift = grid(EXPONENTS, SHIFTS, dtype)
    target = aten.special_zeta.default
    agree(FORMULAS[target](exponent, shift), target(exponent, shift))


@pytest.mark.parametrize("arguments", [(3, torch.tensor([1, 2])), (torch.tensor([2.5]), 2)])
def test_zeta_of_numbers_and_integers(arguments: Any) -> None:
    overload = "self_scalar" if isinstance(arguments[0], int) else "other_scalar"
    target = getattr(aten.special_zeta, overload)
    agree(FORMULAS[target](*arguments), target(*arguments))


def test_every_term_of_zeta_counts() -> None:
    """To the last digits, where the sum before the series leaves something to it."""
    exponent, shift = grid(line(1.5, 12, 22), line(0.1, 5, 50), torch.float64)
    target = aten.special_zeta.default
    found, wanted = FORMULAS[target](exponent, shift), target(exponent, shift)
    torch.testing.assert_close(found, wanted, rtol=1e-14, atol=0)


POSITIVE = [*powers(-4, 3, 36), 1e-30, 9.999, 10, 20, 200, 0, -0.0, -1, -1e-3, INF, -INF, NAN]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", ["igamma", "igammac"])
def test_incomplete_gamma_functions(name: str, dtype: torch.dtype) -> None:
    a, x = grid(POSITIVE, POSITIVE, dtype)
    target = getattr(aten, name).default
    agree(FORMULAS[target](a, x), target(a, x))


def test_incomplete_gamma_functions_of_large_numbers() -> None:
    """The median of the distribution of order a is about a - 1/3."""
    a = torch.tensor([1e6, 1e9, 1e12], dtype=torch.float64)
    found = FORMULAS[aten.igamma.default](a, a - 1 / 3)
    torch.testing.assert_close(found, torch.full_like(a, 0.5), rtol=0, atol=1e-7)


def test_bernoulli_numbers_are_those_of_their_recurrence() -> None:
    numbers = [Fraction(1), Fraction(-1, 2)]
    for n in range(2, 2 * len(BERNOULLI) + 1):
        numbers.append(-sum(math.comb(n + 1, k) * numbers[k] for k in range(n)) / (n + 1))
    assert list(BERNOULLI) == [float(b) for b in numbers[2::2]]
    euler = -0.5772156649015329
    found = FORMULAS[aten.digamma.default](torch.ones(1, dtype=torch.float64))
    torch.testing.assert_close(found.item(), euler, rtol=1e-15, atol=0)


POLYNOMIALS = sorted(
    {str(t).split(".")[1] for t in FORMULAS if "polynomial" in str(t)},
)
POINTS = [
    *line(-3, 3, 97), 1e-10, 0.9999, -0.9999, 1.0001, 10, -1e3, 1e10, -1e20, 1e30, 1e38, INF,
    -INF,
]  # fmt: skip
# Truncated; no number below zero, no NaN, and nothing too large for an int64 is a degree.
DEGREES = [*line(-2, 12, 57), -0.5, -1e9, INF, -INF, NAN, 1e19, -1e30]


def test_there_are_twelve_families_of_polynomials() -> None:
    assert len(POLYNOMIALS) == 12


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", POLYNOMIALS)
def test_polynomials(name: str, dtype: torch.dtype) -> None:
    degrees = DEGREES if dtype == torch.float32 else [*DEGREES, 20, 31, 128, 150]
    x, n = grid(POINTS, degrees, dtype)
    target = getattr(aten, name).default
    agree(FORMULAS[target](x, n), target(x, n))


@pytest.mark.parametrize("name", POLYNOMIALS)
def test_degree_zero_is_1_also_of_nan(name: str) -> None:
    x, n = torch.tensor([NAN, NAN]), torch.tensor([0.0, 1.0])
    target = getattr(aten, name).default
    agree(FORMULAS[target](x, n), target(x, n))


@pytest.mark.parametrize("name", ["special_hermite_polynomial_h", "special_hermite_polynomial_he"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_hermite_polynomials_end_at_a_degree(name: str, dtype: torch.dtype) -> None:
    last = {torch.float32: 128, torch.float64: 512}[dtype]
    n = torch.tensor([last, last + 1], dtype=dtype)
    x = torch.full_like(n, 0.01)
    target = getattr(aten, name).default
    found = FORMULAS[target](x, n)
    assert torch.equal(found.isnan(), target(x, n).isnan())
    assert bool(found[1].isnan())


@pytest.mark.parametrize("arguments", [
    (torch.tensor([0.3, 2.0]), 9), (0.3, torch.tensor([9.0, 2.0])),
    (torch.tensor([2, 3]), torch.tensor([[3], [4]])), (torch.tensor([True, False]), 3),
], ids=str)  # fmt: skip
def test_polynomials_of_numbers_and_integers(arguments: Any) -> None:
    kinds = [isinstance(a, Tensor) for a in arguments]
    overload = "default" if all(kinds) else "n_scalar" if kinds[0] else "x_scalar"
    target = getattr(aten.special_legendre_polynomial_p, overload)
    agree(FORMULAS[target](*arguments), target(*arguments))
