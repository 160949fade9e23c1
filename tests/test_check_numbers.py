"""The arithmetic of the check, condition by condition, on arrays of a few numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from strop.compiler import Model
from strop.compiler.check.comparison import Comparison, compare
from strop.compiler.check.limits import hold_to_budget, hold_to_expectations, missed_by
from strop.compiler.frontend.cases import Case, make_cases, make_probe
from strop.compiler.frontend.inputs import read_inputs
from strop.compiler.ir.footprint import Footprint
from strop.compiler.recipes.budget import Budget
from strop.compiler.rewriting.recorder import StepRecord
from strop.compiler.rewriting.rules import NearMiss
from strop.compiler.util.errors import BudgetError, RuntimeRefusedError, UsageError
from strop.compiler.util.numerics import Drift, drift, row_cosine, sqnr

NAN, INF = math.nan, math.inf


def compared(got: Any, want: Any, rounding: float = 0.0) -> Comparison:
    case = Case("a case", {}, {"y": np.asarray(want)}, {"y": rounding})
    return compare(case, {"y": np.asarray(got)})[0]


FINITE = [
    ([1.0, NAN], [1.0, 2.0], False),
    ([1.0, INF], [1.0, 2.0], False),
    ([1.0, -INF], [1.0, 2.0], False),
    ([1.0, 2.0], [1.0, NAN], False),
    ([1.0, 2.0], [1.0, INF], False),
    ([1.0, INF], [1.0, -INF], False),
    ([1.0, NAN], [1.0, INF], False),
    ([1.0, INF], [1.0, NAN], False),
    ([INF, NAN], [INF, NAN], True),
    ([INF, NAN], [-INF, NAN], False),
    ([1.0, NAN], [1.0, NAN], True),
    ([1.0, INF], [1.0, INF], True),
    ([1.0, -INF], [1.0, -INF], True),
    ([1.0, 2.0], [1.0, 2.0], True),
]


@pytest.mark.parametrize(("got", "want", "finite"), FINITE)
def test_a_value_that_is_not_finite_is_a_fault_unless_the_original_has_it_there(
    got: list[float], want: list[float], finite: bool
) -> None:
    result = compared(got, want)
    assert result.finite == finite
    said = result.misses(Budget())
    assert said is None if finite else said is not None and "holds NaN or Inf" in said
    moved = drift({"y": np.array(got)}, {"y": np.array(want)})
    assert moved.finite == finite
    assert moved.above(0.0) != finite
    if not finite:
        assert (moved.sqnr_db, moved.cosine) == (-INF, -1.0)
    else:
        assert (result.max_error, moved.max_abs, moved.sqnr_db) == (0.0, 0.0, None)


def test_a_shared_infinity_hides_no_error_beside_it() -> None:
    result = compared([INF, 1.5, NAN], [INF, 1.0, NAN])
    assert (result.max_error, result.finite) == (0.5, True)


def test_an_error_is_relative_to_the_largest_value_where_that_is_above_one() -> None:
    assert compared([0.5, 0.0], [0.25, 0.0]).max_error == 0.25
    assert compared([-8.0, 1.0], [-4.0, 1.0]).max_error == 1.0
    assert compared([3.0, 1.0], [4.0, 1.0]).max_error == 0.25
    assert compared(np.zeros((0, 3)), np.zeros((0, 3))).max_error == 0.0
    assert drift({"y": np.zeros((0, 3))}, {"y": np.zeros((0, 3))}).max_abs == 0.0


def test_outputs_that_are_not_float_are_compared_by_the_share_of_equal_elements() -> None:
    result = compared([1, 2, 3, 9], [1, 2, 3, 4])
    assert (result.max_error, result.cosine, result.elements) == (0.25, None, 4)
    assert compared([True, False], [True, True]).max_error == 0.5
    empty = compared(np.zeros(0, int), np.zeros(0, int))
    assert (empty.max_error, empty.finite, empty.elements) == (0.0, True, 0)


@pytest.mark.parametrize(
    "got", [np.zeros((2, 1), np.float32), np.zeros(2, np.float64), np.zeros(3, np.float32)]
)
def test_another_shape_or_dtype_is_refused(got: np.ndarray[Any, Any]) -> None:
    with pytest.raises(RuntimeRefusedError, match="the original's is float32"):
        compared(got, np.zeros(2, np.float32))


def comparison(**values: Any) -> Comparison:
    known = {"case": "c", "output": "y", "max_error": 0.1, "cosine": 0.9, "finite": True}
    return Comparison(**(known | values))


MISSES = [
    (Budget(), {}, None),
    (Budget(max_error=0.1), {}, None),
    (Budget(max_error=0.09), {}, "off by 1.00e-01 in case 'c' (budget 9.00e-02)"),
    (Budget(max_error=0.09), {"rounding": 0.02}, None),
    (Budget(max_error=0.05), {"rounding": 0.02}, "the original's own rounding 2.00e-02"),
    (Budget(max_error=1.0), {"max_error": NAN}, "off by nan"),
    (Budget(max_error=0.0), {"max_error": 0.0}, None),
    (Budget(min_cosine=0.9), {}, None),
    (Budget(min_cosine=0.91), {}, "cosine 0.90000 in case 'c' (budget 0.91)"),
    (Budget(max_error=0.2, min_cosine=0.91), {}, "cosine"),
    (Budget(min_cosine=0.99), {"cosine": None}, None),
    (Budget(min_agreement=0.9), {"cosine": None}, None),
    (
        Budget(min_agreement=0.95),
        {"cosine": None},
        "y has 90.00% equal elements in case 'c' (budget 95",
    ),
    (Budget(max_error=0.1), {"cosine": None}, None),
    (Budget(max_error=0.05), {"cosine": None}, "y has 90.00% equal elements"),
    (Budget(max_error=0.05, min_agreement=0.8), {"cosine": None}, None),
    (Budget(max_error=5.0), {"finite": False}, "holds NaN or Inf"),
]


@pytest.mark.parametrize(("budget", "values", "says"), MISSES)
def test_a_budget_is_missed_beyond_it_only(
    budget: Budget, values: dict[str, Any], says: str | None
) -> None:
    said = comparison(**values).misses(budget)
    assert said is None if says is None else said is not None and says in said


def test_a_record_keeps_a_few_digits_and_no_count() -> None:
    made = comparison(max_error=0.123456, cosine=0.1234567, rounding=0.0098765).record()
    assert made == {
        "case": "c",
        "output": "y",
        "max_error": 0.123,
        "cosine": 0.12346,
        "finite": True,
        "mismatches": None,
        "rounding": 0.00988,
        "in_torch": False,
    }
    labels = comparison(cosine=None, max_error=0.25).record()
    assert (labels["cosine"], labels["mismatches"]) == (None, 0.25)


def test_cosines_are_means_over_rows() -> None:
    a = np.array([[1.0, 0.0], [0.0, 2.0]])
    b = np.array([[3.0, 0.0], [1.0, 0.0]])
    assert row_cosine(a, b) == 0.5
    assert row_cosine(a, -a) == -1.0
    assert row_cosine(np.zeros((2, 2)), np.zeros((2, 2))) == 1.0
    assert row_cosine(np.zeros((1, 2)), np.ones((1, 2))) == 0.0
    assert row_cosine(np.ones((1, 2)), np.zeros((1, 2))) == 0.0
    assert row_cosine(np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([[0.0, 0.0], [1.0, 1.0]])) > 0.99
    assert row_cosine(np.array(2.0), np.array(3.0)) == 1.0
    assert row_cosine(np.zeros((0, 4)), np.zeros((0, 4))) == 1.0
    assert row_cosine(np.array([-1.0, 0.0]), np.array([0.0, 0.0])) == 0.0


def test_the_ratio_of_signal_to_noise_is_in_decibels() -> None:
    want = np.array([10.0, 0.0])
    assert sqnr(np.array([9.0, 0.0]), want) == pytest.approx(20.0)
    assert sqnr(want, want) is None
    assert sqnr(np.array([1.0, 0.0]), np.zeros(2)) == -INF


def test_a_drift_is_that_of_the_worst_output() -> None:
    want = {"large": np.array([100.0, 0.0]), "small": np.array([0.0, 1.0]), "label": np.arange(4)}
    got = {
        "large": np.array([102.0, 0.0]),
        "small": np.array([0.1, 1.0]),
        "label": np.array([0, 1, 2, 5]),
    }
    found = drift(got, want)
    assert found.output == "label"
    assert found.max_abs == 2.0
    assert found.sqnr_db == pytest.approx(20.0)
    assert found.cosine == pytest.approx(1 / math.sqrt(1.01))
    assert (found.agreement, found.finite) == (0.75, True)
    pair = {name: got[name] for name in ("large", "small")}
    assert drift(pair, {name: want[name] for name in pair}).output == "small"


def test_the_worst_output_is_one_that_is_not_a_number_where_there_is_one() -> None:
    want = {"a": np.array([1.0]), "b": np.array([1.0]), "c": np.zeros(0)}
    found = drift({"a": np.array([1e30]), "b": np.array([NAN]), "c": np.zeros(0)}, want)
    assert found.output == "b" and math.isnan(found.max_abs) and not found.finite


def test_what_should_be_zeros_has_a_worst_output_too() -> None:
    want = {"a": np.zeros(2), "b": np.ones(2)}
    assert drift({"a": np.array([0.1, 0.0]), "b": np.array([1.5, 1.0])}, want).output == "a"


def test_outputs_of_other_names_or_shapes_cannot_be_compared() -> None:
    one = {"y": np.zeros(2)}
    with pytest.raises(ValueError, match="outputs are"):
        drift({}, one)
    with pytest.raises(ValueError, match="outputs are"):
        drift(one | {"z": np.zeros(2)}, one)
    with pytest.raises(ValueError, match="has shape"):
        drift({"y": np.zeros(3)}, one)


def test_agreement_is_of_the_largest_place_in_each_row() -> None:
    want = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert drift({"y": np.array([[0.0, 2.0], [0.0, 0.5]])}, {"y": want}).agreement == 0.5
    assert drift({"y": np.array([[2.0, 0.0], [0.5, 0.0]])}, {"y": want}).agreement == 0.5
    assert drift({"y": np.zeros((0, 2))}, {"y": np.zeros((0, 2))}).agreement == 1.0
    assert drift({"y": np.zeros(0, int)}, {"y": np.zeros(0, int)}).agreement == 1.0
    assert drift({"y": np.array(1.0)}, {"y": np.array(3.0)}).agreement == 1.0


def moved(**values: Any) -> Drift:
    known = {"output": "y", "max_abs": 0.1, "sqnr_db": 40.0, "cosine": 0.9}
    return Drift(**(known | {"agreement": 1.0, "finite": True} | values))


ABOVE = [
    ({}, 40.0, False),
    ({}, 41.0, True),
    ({"sqnr_db": None}, 400.0, False),
    ({"finite": False, "sqnr_db": None}, 0.0, True),
    ({"cosine": None, "sqnr_db": 0.0}, 99.0, False),
    ({"cosine": None, "agreement": 0.99}, 0.0, True),
]


@pytest.mark.parametrize(("values", "noise", "above"), ABOVE)
def test_a_drift_is_more_than_noise_below_a_ratio(
    values: dict[str, Any], noise: float, above: bool
) -> None:
    assert moved(**values).above(noise) == above


def test_a_rounded_drift_holds_only_what_json_takes() -> None:
    made = moved(max_abs=0.123456, sqnr_db=12.345, cosine=0.1234567, agreement=0.123456).rounded()
    assert made == {
        "output": "y",
        "max_abs": 0.123,
        "sqnr_db": 12.3,
        "cosine": 0.12346,
        "agreement": 0.1235,
        "finite": True,
    }
    bare = moved(max_abs=INF, sqnr_db=-INF, cosine=None).rounded()
    assert (bare["max_abs"], bare["sqnr_db"], bare["cosine"]) == (None, -300.0, None)
    assert moved(sqnr_db=None).rounded()["sqnr_db"] is None


def test_labels_of_all_cases_count_together() -> None:
    one = comparison(cosine=None, max_error=1.0, elements=1)
    many = comparison(cosine=None, max_error=0.0, elements=99, case="d")
    other = comparison(cosine=None, max_error=0.0, elements=500, output="z")
    assert missed_by([one, many, other], Budget(min_agreement=0.99)) == []
    assert missed_by([one, many, other], Budget(min_agreement=0.991)) == [one]
    assert missed_by([comparison(cosine=None, max_error=0.0, elements=0)], Budget()) == []
    float_too = comparison(max_error=1.0)
    assert missed_by([many, float_too], Budget(max_error=0.5)) == [float_too]


def test_the_worst_five_are_told_first_and_the_suspect() -> None:
    results = [comparison(output=f"y{i}", max_error=i / 10) for i in range(8)]
    with pytest.raises(BudgetError) as raised:
        hold_to_budget(results, Budget(max_error=0.05), "the lowering")
    lines = str(raised.value).splitlines()
    assert lines[0] == "7 of 8 comparisons with the original miss the budget:"
    assert [line.split()[0] for line in lines[1:-1]] == ["y7", "y6", "y5", "y4", "y3"]
    assert lines[-1] == "Suspected: the lowering. Nothing was written."
    hold_to_budget(results, Budget(max_error=0.7), "nothing")


def step(name: str, misses: int = 0, **rewrites: int) -> StepRecord:
    size = Footprint(0, 0, 0)
    near = [NearMiss("a rule", f"%n{i}", "a reason", ()) for i in range(misses)]
    return StepRecord(name, {}, size, size, True, rewrites, [], near, 0.0, 0)


STEPS = [step("one", noop=2, cast=1), step("two", noop=1), step("three")]


@pytest.mark.parametrize(
    "expected", [{"one": 3}, {"two": 1}, {"three": 0}, {"noop": 3}, {"cast": 1}, {"quiet": 0}]
)
def test_steps_and_rules_are_held_to_their_counts(expected: dict[str, int]) -> None:
    hold_to_expectations(STEPS, expected, ["quiet"])
    wrong = {name: count + 1 for name, count in expected.items()}
    with pytest.raises(BudgetError, match=f"rewrite {next(iter(wrong.values()))} times and did"):
        hold_to_expectations(STEPS, wrong, ["quiet"])


def test_a_name_that_no_step_or_rule_has_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="did you mean 'noop'"):
        hold_to_expectations(STEPS, {"nop": 1})
    with pytest.raises(UsageError):
        hold_to_expectations(STEPS, {"quiet": 0})


@pytest.mark.parametrize("name", ["a rule", "loud"])
def test_five_near_misses_of_a_step_or_rule_are_told(name: str) -> None:
    with pytest.raises(BudgetError) as raised:
        hold_to_expectations([step("loud", 7), step("two")], {name: 1}, ["a rule"])
    assert "Near misses: 7" in str(raised.value)
    assert str(raised.value).count("a reason") == 5
    with pytest.raises(BudgetError, match="Near misses: 0"):
        hold_to_expectations([step("loud", 7), step("two")], {"two": 1}, ["a rule"])


class Double(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2


def cases_of(dims: Any, rows: int = 3, module: nn.Module | None = None) -> list[str]:
    model = Model(module or Double(), {"x": torch.ones(rows, 4)}, dynamic={"x": dims})
    signature, example, calibration = read_inputs(model)
    return [c.name for c in make_cases(model.module, signature, calibration or [example])]


def test_sizes_are_checked_at_both_ends_and_at_an_odd_one_between() -> None:
    assert cases_of({0: ("rows", 2, 9)}) == [
        "calibration[0]",
        "smallest: rows=2",
        "between: rows=5",
        "largest: rows=9",
    ]
    assert cases_of({0: ("rows", 2, 10)})[2:] == ["between: rows=7", "largest: rows=10"]


def test_an_unbounded_dim_is_checked_at_twice_its_example_and_one() -> None:
    assert cases_of({0: "rows"})[-1] == "largest: rows=7"
    assert cases_of({0: "rows"}, rows=5)[-1] == "largest: rows=11"


def test_a_size_that_is_the_same_twice_is_checked_once() -> None:
    assert cases_of({0: ("rows", 2, 3)})[1:] == ["smallest: rows=2", "between: rows=3"]
    assert cases_of({}) == ["calibration[0]"]


def test_outputs_without_elements_are_no_fault() -> None:
    class Empty(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:0]

    assert cases_of({}, module=Empty()) == ["calibration[0]"]


@pytest.mark.parametrize(("rows", "dims", "size"), [(20, "rows", 8), (5, "rows", 5)])
def test_a_probe_is_no_larger_than_eight(rows: int, dims: Any, size: int) -> None:
    model = Model(Double(), {"x": torch.ones(rows, 4)}, dynamic={"x": {0: dims}})
    signature, example, _ = read_inputs(model)
    probe = make_probe(model.module, signature, example)
    assert probe.inputs["x"].shape == (size, 4)
    assert probe.expected["output"].shape == (size, 4)


def test_a_probe_is_no_smaller_than_its_dim_allows() -> None:
    model = Model(Double(), {"x": torch.ones(20, 4)}, dynamic={"x": {0: ("rows", 12, 30)}})
    signature, example, _ = read_inputs(model)
    assert make_probe(model.module, signature, example).inputs["x"].shape == (12, 4)


class Picky(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] != 3:
            raise ValueError("three rows\nand no others")
        return x


def test_a_module_that_fails_is_told_by_its_case_and_first_line() -> None:
    with pytest.raises(UsageError) as raised:
        cases_of({0: ("rows", 1, 5)}, module=Picky())
    said = str(raised.value)
    assert "fails in case 'smallest: rows=1': ValueError: three rows. " in said
    assert "and no others" not in said
    assert "narrow the ranges in `dynamic`" in said
    with pytest.raises(UsageError, match="Check example_inputs"):
        cases_of({}, rows=4, module=Picky())


def test_a_module_without_outputs_cannot_be_checked() -> None:
    class Silent(nn.Module):
        def forward(self, x: Tensor) -> None:
            return None

    with pytest.raises(UsageError, match="returns no tensor"):
        cases_of({}, module=Silent())
