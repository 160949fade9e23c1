"""``einsum`` as a plain product: text, numbers, and what stays."""

from __future__ import annotations

import pytest
import torch
from program_tools import body, counts, program_of, same_numbers
from torch import Tensor

from strop.passes.cleanup.linears import PlainLinears

SIZES = {"b": 2, "h": 3, "q": 4, "k": 5, "d": 6}


def operands(equation: str) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    terms = equation.replace(" ", "").partition("->")[0].split(",")
    return [torch.randn([SIZES[n] for n in term], generator=generator) for term in terms]


@pytest.mark.parametrize(
    "equation",
    [
        "bhqd,bhkd->bhqk",
        "bqhd,bkhd->bhqk",
        "bhqk, bkhd -> bqhd",
        "bhdq,bhdk->bhqk",
        "qd,kd->qk",
        "dq,dk->kq",
        "hbqd,bhdk->qbkh",
    ],
)
def test_products_of_matrices_become_matmul(equation: str) -> None:
    values = operands(equation)
    before = program_of(lambda x, y: torch.einsum(equation, x, y), *values)
    result = PlainLinears().run(before)
    assert counts(result) == {"einsum-product": 1}
    assert "aten.matmul" in body(result.program)
    same_numbers(before, result.program, *values, tolerance=1e-5)


def test_an_equation_in_the_order_of_matmul_is_nothing_else() -> None:
    before = program_of(lambda x, y: torch.einsum("bqd,bdk->bqk", x, y), *operands("bqd,bdk->bqk"))
    text = body(PlainLinears().run(before).program)
    assert "matmul(%input_0, %input_1)" in text
    assert "transpose" not in text


@pytest.mark.parametrize(
    ("equation", "why"),
    [
        ("bqd,bkd->bq", "not a product of matrices"),
        ("bhqd,hkd->bhqk", "not a product of matrices"),
        ("bd,bd->bd", "not a product of matrices"),
        ("qd,kh->qk", "not a product of matrices"),
        ("bbd,dk->bk", "takes a diagonal"),
    ],
)
def test_other_equations_stay_and_say_why(equation: str, why: str) -> None:
    values = operands(equation)
    result = PlainLinears().run(program_of(lambda x, y: torch.einsum(equation, x, y), *values))
    assert not result.modified
    assert why in result.log.misses[0].reason


@pytest.mark.parametrize(
    "equation", ["...qd,...kd->...qk", "...qd, ...kd -> ...kq", "q...d,k...d->...qk"]
)
def test_axes_that_dots_stand_for_are_those_of_the_batch(equation: str) -> None:
    values = torch.randn(2, 3, 4, 6), torch.randn(2, 3, 5, 6)
    if equation.startswith("q"):
        values = values[0].permute(2, 0, 1, 3), values[1].permute(2, 0, 1, 3)
    before = program_of(lambda x, y: torch.einsum(equation, x, y), *values)
    result = PlainLinears().run(before)
    assert counts(result) == {"einsum-product": 1}
    same_numbers(before, result.program, *values, tolerance=1e-5)


@pytest.mark.parametrize("equation", ["...qd,kd->...qk", "qd,dk,kh->qh", "qd,kd"])
def test_equations_with_unnamed_axes_stay(equation: str) -> None:
    terms = equation.partition("->")[0].split(",")
    values = [torch.randn([SIZES[n] for n in t.removeprefix("...")]) for t in terms]
    result = PlainLinears().run(program_of(lambda *x: torch.einsum(equation, *x), *values))
    assert not result.modified and not result.log.misses


def test_dots_that_stand_for_more_axes_of_one_value_stay() -> None:
    values = torch.randn(2, 3, 4, 6), torch.randn(3, 5, 6)
    program = program_of(lambda x, y: torch.einsum("...qd,...kd->...qk", x, y), *values)
    assert not PlainLinears().run(program).modified


def test_an_axis_of_one_that_is_repeated_stays() -> None:
    values = torch.randn(1, 4, 6), torch.randn(2, 6, 5)
    before = program_of(lambda x, y: torch.einsum("bqd,bdk->bqk", x, y), *values)
    result = PlainLinears().run(before)
    assert not result.modified
    assert "is repeated" in result.log.misses[0].reason
