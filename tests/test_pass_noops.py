"""The small cleanups: what they remove, and each condition for which they leave a node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from program_tools import assert_left_alone, body, counts, program_of, run_passes, same_numbers
from torch import Tensor

from strop.passes.cleanup.constants import FoldConstants
from strop.passes.cleanup.cse import CommonSubexpressions
from strop.passes.cleanup.linears import PlainLinears
from strop.passes.cleanup.noops import Noops

SEED = torch.Generator().manual_seed(0)
X = torch.randn(2, 3, 4, generator=SEED)
W = torch.randn(4, 5, generator=SEED)

REMOVED: dict[str, Callable[[Tensor], Tensor]] = {
    "zero added": lambda x: x + 0,
    "zero taken away": lambda x: x - 0,
    "times one": lambda x: x * 1.0,
    "over one": lambda x: x / 1,
    "no padding": lambda x: F.pad(x, (0, 0)),
    "the whole of an axis": lambda x: x[:, 0:3],
    "its own shape": lambda x: x.reshape(2, 3, 4),
    "its own size": lambda x: x.expand(2, 3, 4),
    "a view and back": lambda x: x.reshape(6, 4).reshape(2, 3, 4),
    "axes exchanged twice": lambda x: x.transpose(1, 2).transpose(-1, -2),
}
KEPT: dict[str, Callable[[Tensor], Tensor]] = {
    "one added": lambda x: x + 1,
    "one taken away": lambda x: x - 1,
    "itself added": lambda x: x + x,
    "times zero": lambda x: x * 0,
    "over two": lambda x: x / 2,
    "times itself": lambda x: x * x,
    "over itself": lambda x: x / x,
    "pads on one side and cuts on the other": lambda x: F.pad(x, (1, -1)),
    "another shape": lambda x: x.reshape(2, 12),
    "a view and another": lambda x: x.reshape(6, 4).reshape(4, 6),
    "repeated": lambda x: x.expand(2, 2, 3, 4),
    "other axes exchanged": lambda x: x.transpose(1, 2).transpose(0, 1),
    "axes exchanged once": lambda x: x.transpose(1, 2),
    "another dtype": lambda x: x.double(),
}


@pytest.mark.parametrize("case", REMOVED)
def test_what_changes_nothing_is_removed(case: str) -> None:
    result = Noops().run(program_of(REMOVED[case], X))
    assert body(result.program).splitlines()[1:] == ['  return "output": %input_0']


def test_what_changes_something_stays() -> None:
    before = program_of(lambda x: tuple(model(x) for model in KEPT.values()), X)
    assert not Noops().run(before).modified


DROPOUTS = [
    torch.dropout, torch.feature_dropout, torch.alpha_dropout, torch.feature_alpha_dropout,
]  # fmt: skip


@pytest.mark.parametrize("dropout", DROPOUTS)
def test_dropout_that_drops_nothing_is_removed(dropout: Any) -> None:
    result = Noops().run(program_of(lambda x: dropout(dropout(x, 0.5, False), 0.0, True), X))
    assert body(result.program).splitlines()[1:] == ['  return "output": %input_0']


@pytest.mark.parametrize("dropout", DROPOUTS)
def test_dropout_in_train_mode_stays_and_says_so(dropout: Any) -> None:
    program = program_of(lambda x: dropout(x, 0.5, True), X)
    assert_left_alone(Noops(), program, "drops elements")


DTYPES = (
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
)


def extremes(dtype: torch.dtype) -> Tensor:
    """Values that a smaller dtype cannot hold: ends of the range, and the longest mantissas."""
    if dtype == torch.bool:
        return torch.tensor([False, True])
    if dtype.is_floating_point:
        info = torch.finfo(dtype)
        return torch.tensor([info.max, info.min, info.tiny, 1 + info.eps, -3.0], dtype=dtype)
    ends = torch.iinfo(dtype)
    return torch.tensor([ends.max, ends.min, ends.max - 1, ends.min + 1, 3, 0], dtype=dtype)


def survives(source: torch.dtype, inner: torch.dtype) -> bool:
    """Whether every value comes back from a dtype that torch's promotion takes it to."""
    values = extremes(source)
    same = torch.equal(values.to(inner).to(source), values)
    # Integers that are rounded up to 2^63 come back by chance, through an overflow.
    exact = source != torch.int64 or not inner.is_floating_point
    return same and exact and torch.can_cast(source, inner)


@pytest.mark.parametrize("source", DTYPES, ids=str)
def test_a_cast_there_and_back_is_removed_where_every_value_survives(source: torch.dtype) -> None:
    others = [d for d in DTYPES if d != source]

    def model(x: Tensor) -> tuple[Tensor, ...]:
        return tuple(x.to(inner).to(source) for inner in others)

    after = Noops().run(program_of(model, extremes(source))).program
    removed = {d for d, out in zip(others, after.outputs) if out.op == "placeholder"}
    assert removed == {d for d in others if survives(source, d)}


def test_a_cast_through_complex_numbers_stays() -> None:
    program = program_of(lambda x: x.to(torch.complex64).to(torch.float32), X)
    assert_left_alone(Noops(), program, "may not hold every")


def test_a_cast_there_and_on_to_a_third_dtype_stays() -> None:
    program = program_of(lambda x: x.double().half(), X)
    assert not Noops().run(program).modified


def test_calls_with_other_arguments_are_not_merged() -> None:
    def model(x: Tensor) -> tuple[Tensor, ...]:
        return (
            torch.add(x, x, alpha=2),
            torch.add(x, x, alpha=3),
            x.permute(0, 2, 1),
            x.permute(1, 0, 2),
            torch.rand_like(x),
            torch.rand_like(x),
        )

    assert not CommonSubexpressions().run(program_of(model, X)).modified


def test_calls_after_a_random_one_are_merged() -> None:
    program = program_of(lambda x: torch.rand_like(x) + x.exp() * x.exp(), X)
    assert counts(CommonSubexpressions().run(program)) == {"cse": 1}


def test_a_truth_value_is_no_number() -> None:
    program = program_of(lambda x: (torch.add(x, 1), torch.add(x, True)), torch.tensor([True]))
    assert not CommonSubexpressions().run(program).modified


def test_calls_with_equal_lists_and_names_are_merged() -> None:
    def model(x: Tensor) -> tuple[Tensor, ...]:
        return (
            torch.add(x, x, alpha=2) + torch.add(x, x, alpha=2),
            x.permute(0, 2, 1) * x.permute(0, 2, 1),
        )

    before = program_of(model, X)
    result = CommonSubexpressions().run(before)
    assert counts(result) == {"cse": 2}
    same_numbers(before, result.program, X, tolerance=0)


@pytest.mark.parametrize(("limit", "folded"), [(16, True), (15, False)])
def test_a_constant_of_the_limit_is_folded_and_a_larger_one_is_not(
    limit: int, folded: bool
) -> None:
    before = program_of(lambda x: x + torch.arange(4).to(torch.float32), X)
    assert FoldConstants(limit_bytes=limit).run(before).modified == folded


def test_only_what_is_read_by_something_else_is_folded_and_names_its_sources() -> None:
    table = torch.randn(4)
    before = program_of(lambda x: x * (table + 1).exp(), X)
    result = FoldConstants().run(before)
    assert counts(result) == {"constants": 1}
    made = [origin for origin in result.program.origins.values() if origin.made_by == "constants"]
    assert [len(origin.sources) for origin in made] == [1]
    assert made[0].sources[0] in before.weights
    same_numbers(before, result.program, X, tolerance=1e-6)


def test_what_a_trained_weight_goes_into_is_left_to_the_training() -> None:
    program = program_of(lambda x, w: x * (w + 1).exp(), X, w=torch.ones(4))
    assert not FoldConstants().run(program).modified


ROWS = torch.randn(6, 4, generator=SEED)
PRODUCTS_KEPT: dict[str, Callable[..., Any]] = {
    "of two weights": lambda x, w: x + (w.t() @ w).sum(),
    "with a weight of three axes": lambda x, w: x @ w[None].expand(2, 4, 5),
    "with a vector": lambda x, w: x @ w[:, 0],
    "of a vector": lambda x, w: x[0, 0] @ w,
    "with the addend scaled": lambda x, w: torch.addmm(w[0], x[0], w, beta=2),
    "with the product scaled": lambda x, w: torch.addmm(w[0], x[0], w, alpha=2),
}


@pytest.mark.parametrize("case", PRODUCTS_KEPT)
def test_other_products_stay(case: str) -> None:
    program = program_of(PRODUCTS_KEPT[case], X, w=W)
    assert not PlainLinears().run(program).modified


def test_a_product_with_a_matrix_added_stays() -> None:
    program = program_of(lambda x, y, w: torch.addmm(y, x, w), ROWS, torch.randn(6, 5), w=W)
    assert_left_alone(PlainLinears(), program, "the addend is not a bias")


def test_one_number_added_is_no_bias() -> None:
    program = program_of(lambda x, w: torch.addmm(w[0, 0], x, w), ROWS, w=W)
    assert_left_alone(PlainLinears(), program, "the addend is not a bias")


def test_a_transposed_weight_is_taken_as_it_lies() -> None:
    before = program_of(lambda x, w: x @ w.t(), X, w=W.t().contiguous())
    result = PlainLinears().run(before)
    assert "aten.linear(%input_0, @w, None)" in body(result.program)
    same_numbers(before, result.program, X, tolerance=1e-6)


def test_a_product_with_a_bias_becomes_a_linear_layer_with_it() -> None:
    before = program_of(lambda x, w, b: torch.addmm(b, x, w), ROWS, w=W, b=torch.randn(5))
    result = PlainLinears().run(before)
    assert counts(result) == {"linear-product": 1}
    same_numbers(before, result.program, ROWS, tolerance=1e-6)


MORE_THAN_FLATTENED: dict[str, Callable[..., Tensor]] = {
    "other rows after": lambda x, w, b: torch.addmm(b, x.reshape(-1, 4), w).reshape(3, 2, 5),
    "rows cut before": lambda x, w, b: torch.addmm(b, x.reshape(-1, 2), w[:2]).reshape(2, 3, 10),
    "rows joined": lambda x, w, b: torch.addmm(b, x.reshape(-1, 4), w).reshape(2, 15),
}


@pytest.mark.parametrize("case", MORE_THAN_FLATTENED)
def test_views_that_do_more_than_flatten_rows_stay(case: str) -> None:
    before = program_of(MORE_THAN_FLATTENED[case], X, w=W, b=torch.randn(5))
    after = run_passes(before, Noops(), PlainLinears())
    assert body(after).count("aten.reshape") == 2
    same_numbers(before, after, X, tolerance=1e-6)
