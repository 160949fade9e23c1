"""Attention scores: each step between product and softmax, as one mask, or not and why."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from program_tools import assert_left_alone, body, counts, program_of, run_passes, same_numbers
from torch import Tensor

from strop.compiler.ir.program import Program
from strop.compiler.rewriting.passes import PassResult
from strop.passes.cleanup.noops import Noops
from strop.passes.fuse.eager_attention import FuseAttention

SEED = torch.Generator().manual_seed(0)
LOWEST = torch.finfo(torch.float32).min
Q = torch.randn(2, 2, 5, 4, generator=SEED)
BIAS = torch.randn(5, 5, generator=SEED)
# The last row of the first batch hides everything; the other mask hides the rest of some rows.
MASK = torch.rand(2, 1, 5, 5, generator=SEED) < 0.4
MASK[0, :, -1] = True
OTHER = torch.rand(2, 1, 5, 5, generator=SEED) < 0.3
OTHER[0, :, 1] = ~MASK[0, :, 1]
INPUTS = (Q, MASK, OTHER)
# The scores, a mask and another mask, to scores before softmax.
Steps = Callable[..., Tensor]


def attention(steps: Steps) -> Callable[..., Tensor]:
    """Scores of queries with themselves, and what the steps make of them by masks and weights."""

    def model(q: Tensor, mask: Tensor, other: Tensor, **weights: Tensor) -> Tensor:
        return steps(q @ q.mT, mask, other, **weights).softmax(-1) @ q

    return model


def fused(before: Program) -> PassResult:
    return FuseAttention().run(run_passes(before, Noops()))


def same(steps: Steps, **weights: Tensor) -> str:
    """The text after fusing into one operator, which gives the same numbers."""
    before = program_of(attention(steps), *INPUTS, **weights)
    result = fused(before)
    assert counts(result) == {"attention-eager": 1}, result.log.misses
    same_numbers(before, result.program, *INPUTS, tolerance=1e-5)
    return body(result.program)


def left(steps: Steps, reason: str) -> None:
    program = run_passes(program_of(attention(steps), *INPUTS), Noops())
    assert_left_alone(FuseAttention(), program, reason)


@pytest.mark.parametrize("number", [-math.inf, LOWEST, -1e31, -1e30, -1e9, -1e4])
def test_a_number_that_hides_is_one_mask(number: float) -> None:
    same(lambda s, m, o: s.masked_fill(m, number))


@pytest.mark.parametrize("number", [-9999.0, 0.0, 1e9, math.nan])
def test_a_number_that_may_not_hide_is_no_mask(number: float) -> None:
    left(lambda s, m, o: s.masked_fill(m, number), f"filled with {number:g}, which may not hide")


@pytest.mark.parametrize(("number", "factor"), [(-1e4, 1.0), (-2e4, 0.5), (1e9, -1.0), (-1e3, 10)])
def test_a_number_hides_by_what_later_factors_make_of_it(number: float, factor: float) -> None:
    same(lambda s, m, o: s.masked_fill(m, number) * factor)


@pytest.mark.parametrize(("number", "factor"), [(-1e4, 0.5), (-1e9, -1.0), (-1e9, 0.0)])
def test_a_number_that_a_later_factor_makes_too_small_hides_nothing(
    number: float, factor: float
) -> None:
    left(lambda s, m, o: s.masked_fill(m, number) * factor, "which may not hide")


@pytest.mark.parametrize("number", [-1e30, -1e31, LOWEST, -math.inf])
def test_a_sum_after_a_number_beyond_all_sums_joins_the_mask(number: float) -> None:
    same(lambda s, m, o: s.masked_fill(m, number) + BIAS)


@pytest.mark.parametrize("number", [-9e29, -1e9, -1e4])
def test_a_sum_after_a_smaller_number_counts_where_a_row_hides_everything(number: float) -> None:
    left(lambda s, m, o: s.masked_fill(m, number) + BIAS, "a summand comes after")


def test_a_sum_between_two_fills_counts_as_well() -> None:
    left(
        lambda s, m, o: (s.masked_fill(m, -1e9) + BIAS).masked_fill(o, -1e9),
        "a summand comes after",
    )


def hidden_by_sum(number: float) -> Steps:
    return lambda s, m, o: (s + torch.zeros(5, 5).masked_fill(o, number)).masked_fill(m, -1e9)


@pytest.mark.parametrize("number", [-1e4, -1e9, -9e29, -1e30, 1e9])
def test_a_sum_and_a_smaller_number_do_not_both_hide(number: float) -> None:
    left(hidden_by_sum(number), "hidden by a fill and by a sum")


@pytest.mark.parametrize("number", [-9999.0, -2e30, LOWEST])
def test_a_sum_that_hides_nothing_or_beyond_every_number_joins_the_mask(number: float) -> None:
    same(hidden_by_sum(number))


def test_an_input_that_is_added_may_hide() -> None:
    def model(q: Tensor, mask: Tensor, bias: Tensor) -> Tensor:
        return (q @ q.mT + bias).masked_fill(mask, -1e9).softmax(-1) @ q

    program = program_of(model, Q, MASK, BIAS)
    assert_left_alone(FuseAttention(), program, "by a fill and by a sum")


def test_a_table_that_is_cut_hides_nothing_by_where_it_is_cut() -> None:
    same(lambda s, m, o: (s + torch.arange(8.0)[3:]).masked_fill(m, -1e9))


def added(*numbers: float) -> Steps:
    def steps(s: Tensor, m: Tensor, o: Tensor) -> Tensor:
        for mask, number in zip((m, o, m), numbers):
            s = s + torch.zeros(5, 5).masked_fill(mask, number)
        return s

    return steps


@pytest.mark.parametrize(
    ("numbers", "checked"),
    [
        ((LOWEST,), False),
        ((-math.inf,), True),
        ((LOWEST, LOWEST), True),
        ((LOWEST, LOWEST, LOWEST), True),
        ((LOWEST, -1.0), False),
        ((LOWEST, -1e30), True),
        ((-1e38, -1.0), False),
        ((-9e37, -9e37), False),
        ((-1.0, -math.inf), True),
    ],
)
def test_rows_are_checked_where_sums_may_be_infinite(
    numbers: tuple[float, ...], checked: bool
) -> None:
    assert ("aten.amax" in same(added(*numbers))) == checked


def test_rows_are_checked_where_one_mask_is_added_twice() -> None:
    def steps(s: Tensor, m: Tensor, o: Tensor) -> Tensor:
        mask = torch.zeros(5, 5).masked_fill(m, LOWEST)
        return s + mask + mask

    assert "aten.amax" in same(steps)


HOLES = torch.zeros(5, 5).masked_fill(torch.ones(5, 5, dtype=torch.bool).triu(1), -math.inf)
WHOLE = torch.zeros(5, 5).masked_fill(torch.tensor([[False]] * 4 + [[True]]), -math.inf)


@pytest.mark.parametrize(("bias", "checked"), [(HOLES, False), (WHOLE, True), (HOLES.mT, False)])
def test_rows_of_a_kept_mask_are_checked_where_one_hides_everything(
    bias: Tensor, checked: bool
) -> None:
    assert ("aten.amax" in same(lambda s, m, o: s + bias)) == checked


ZERO_TO_FOUR: dict[str, Callable[[Tensor], Tensor]] = {
    "log": lambda x: (x * 0).log(),
    "log2": lambda x: (x * 0).log2(),
    "log10": lambda x: (x * 0).log10(),
    "log1p": lambda x: (x * 0 - 1).log1p(),
    "logit": lambda x: (x * 0).logit(),
    "reciprocal": lambda x: -(x * 0).reciprocal(),
    "exp": lambda x: -(x + 99).exp(),
    "pow": lambda x: -(x + 9).pow(99),
    "tan": lambda x: x.tan(),
    "a quotient": lambda x: -(x + 1) / (x * 0),
}
FINITE: dict[str, Callable[[Tensor], Tensor]] = {
    "a product": lambda x: x * x,
    "over a number": lambda x: x / 2,
    "a root": lambda x: x.sqrt(),
    "a sine": lambda x: x.sin(),
    "a power of two": lambda x: x - x,
    "a chain": lambda x: _chain(x, 60),
    "a wide chain": lambda x: _wide(x, 20),
}


def _chain(x: Tensor, length: int) -> Tensor:
    for _ in range(length):
        x = x * 0.9
    return x


def _wide(x: Tensor, length: int) -> Tensor:
    for _ in range(length):
        x = x.sin() + x.cos()
    return x


def checks(biases: list[Callable[[Tensor], Tensor]]) -> int:
    """How many of these biases, made of 0, 1, 2, ..., are checked for infinities."""

    def model(q: Tensor) -> tuple[Tensor, ...]:
        return tuple(((q @ q.mT) + bias(torch.arange(5.0))).softmax(-1) @ q for bias in biases)

    before = program_of(model, Q)
    result = FuseAttention().run(before)
    assert counts(result) == {"attention-eager": len(biases)}
    same_numbers(before, result.program, Q, tolerance=1e-5)
    return body(result.program).count("aten.amax")


def test_functions_that_make_infinities_are_checked_and_others_are_not() -> None:
    assert checks(list(ZERO_TO_FOUR.values())) == len(ZERO_TO_FOUR)
    assert checks(list(FINITE.values())) == 0


def test_a_bias_made_in_very_many_steps_is_checked() -> None:
    assert checks([lambda x: _chain(x, 62), lambda x: _chain(x, 63)]) == 1


ROWS = {
    "heads": torch.rand(2, 1, 1, generator=SEED) + 0.5,
    "queries": torch.rand(2, 2, 5, 1, generator=SEED) + 0.5,
    "two axes": torch.rand(5, 1, generator=SEED) + 0.5,
    "one axis": torch.rand(1, generator=SEED) + 0.5,
}


@pytest.mark.parametrize("case", ROWS)
def test_factors_of_whole_rows_move_to_the_queries_and_biases(case: str) -> None:
    steps: list[Steps] = [
        lambda s, m, o, r: (s + BIAS) * r,
        lambda s, m, o, r: r * (s - BIAS),
        lambda s, m, o, r: ((s + BIAS) / r + BIAS.mT) * 2.0 * r + BIAS,
    ]
    for one in steps:
        assert "aten.softmax" not in same(one, r=ROWS[case])


LEFT: dict[str, tuple[Steps, str]] = {
    "a factor for each key": (lambda s, m, o: s * BIAS[0], "stands aten.mul"),
    "a factor for each key of a head": (lambda s, m, o: s * BIAS[:2, None], "stands aten.mul"),
    "divided by the scores": (lambda s, m, o: BIAS[:, :1] / s, "stands aten.div"),
    "a number by the scores": (lambda s, m, o: torch.tensor(2.0) / s, "stands aten.div"),
    "over zero": (lambda s, m, o: s / 0.0, "stands aten.div"),
    "taken from a bias": (lambda s, m, o: BIAS - s, "not a product of queries and keys"),
    "added to a bias twice": (lambda s, m, o: torch.add(BIAS, s, alpha=2), "not a product of"),
    "a number added": (lambda s, m, o: s + 1.0, "stands aten.add"),
    "hidden, then scaled": (
        lambda s, m, o: s.masked_fill(m, -1e9) * BIAS[:, :1],
        "scaled by a tensor",
    ),
    "one or the other": (lambda s, m, o: torch.where(m, s, BIAS), "stands aten.where"),
    "filled with an input": (
        lambda s, m, o: s.masked_fill(m, s.new_ones(()).cumsum(0)),
        "stands aten.masked_fill",
    ),
    "repeated over a factor": (
        lambda s, m, o: s[:1, :1] * ROWS["queries"],
        "stands aten.slice",
    ),
}


def test_scores_that_become_doubles_are_left_alone() -> None:
    def model(q: Tensor) -> Tensor:
        return (q @ q.mT * BIAS[:, :1].double()).softmax(-1) @ q.double()

    assert_left_alone(FuseAttention(), program_of(model, Q), "the scores become torch.float64")


@pytest.mark.parametrize("case", LEFT)
def test_other_steps_are_left_alone(case: str) -> None:
    left(*LEFT[case])


def test_scores_are_hidden_behind_one_finite_number() -> None:
    reason = "hidden behind different numbers, [-10000000000.0, -1000000000.0]"
    left(lambda s, m, o: s.masked_fill(m, -1e9).masked_fill(o, -1e10), reason)
    same(lambda s, m, o: s.masked_fill(m, -1e9).masked_fill(o, -math.inf))


def test_the_first_number_that_may_not_hide_is_told() -> None:
    reason = "filled with -100, which may not hide"
    left(lambda s, m, o: s.masked_fill(m, -100.0).masked_fill(o, -200.0), reason)


def test_a_bias_of_rows_and_columns_is_a_mask_as_it_is() -> None:
    assert "unsqueeze" not in same(lambda s, m, o: s + BIAS)
    assert "unsqueeze(%" in same(lambda s, m, o: s + BIAS[0] * 1)


SAME: dict[str, Steps] = {
    "a bias twice": lambda s, m, o: torch.add(s, BIAS, alpha=2),
    "a bias taken away twice": lambda s, m, o: torch.sub(s, BIAS, alpha=2),
    "a bias first": lambda s, m, o: BIAS + s,
    "a kept number": lambda s, m, o: s * torch.tensor(0.5),
    "by a kept number": lambda s, m, o: s / torch.tensor([0.5]),
    "a kept number first": lambda s, m, o: torch.tensor(0.5) * s,
    "where, a number": lambda s, m, o: torch.where(m, -1e9, s),
    "where not, a number": lambda s, m, o: torch.where(m, s, -1e9),
    "where, a kept number": lambda s, m, o: torch.where(m, torch.tensor(-1e9), s),
    "where, a full tensor": lambda s, m, o: torch.where(m, torch.full_like(BIAS, -1e9), s),
    "where, another full tensor": lambda s, m, o: torch.where(m, s, torch.full((5, 5), -1e9)),
    "where, a number as a tensor": lambda s, m, o: torch.where(
        m, torch.scalar_tensor(-math.inf), s
    ),
    "filled with a kept number": lambda s, m, o: s.masked_fill(m, torch.tensor(-1e9)),
    "two fills": lambda s, m, o: s.masked_fill(m, -1e9).masked_fill(~o, -1e9),
    "a fill, a where and a sum": lambda s, m, o: (
        torch.where(o, s.masked_fill(m, -math.inf), -math.inf) + BIAS
    ),
    "everything scaled": lambda s, m, o: (
        ((s * 0.5 + BIAS) * 2.0 + BIAS[0]).masked_fill(m, -1e9) / 3
    ),
}


@pytest.mark.parametrize("case", SAME)
def test_forms_of_one_step_are_recognised(case: str) -> None:
    same(SAME[case])


PRODUCTS: dict[str, Callable[..., Any]] = {
    "onto zeros": lambda q: torch.baddbmm(torch.zeros(2, 5, 5), q, q.mT, alpha=0.3),
    "onto new zeros": lambda q: torch.baddbmm(q.new_zeros(2, 5, 5), q, q.mT, alpha=0.3),
    "onto nothing": lambda q: torch.baddbmm(BIAS.expand(2, 5, 5), q, q.mT, beta=0, alpha=0.3),
}


@pytest.mark.parametrize("case", PRODUCTS)
def test_products_added_to_nothing_have_no_mask(case: str) -> None:
    before = program_of(lambda q: PRODUCTS[case](q).softmax(-1) @ q, Q[0])
    result = FuseAttention().run(before)
    assert ", None, 1, 1, 0.3, False" in body(result.program)
    same_numbers(before, result.program, Q[0], tolerance=1e-6)


def test_weights_changed_in_many_steps_are_said_to_be_changed() -> None:
    def model(q: Tensor) -> Tensor:
        weights = (q @ q.mT).softmax(-1)
        for number in range(7):
            weights = weights * (number + 0.5)
        return weights @ q

    assert_left_alone(FuseAttention(), program_of(model, Q), "weights are changed before they meet")


def test_products_of_other_values_are_no_near_miss() -> None:
    result = FuseAttention().run(program_of(lambda q: (q.exp() * 2) @ q.mT, Q))
    assert not result.modified and not result.log.misses
