"""Budgets for the owner's own metrics: what meets them, what is told, and which step is blamed."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Result, Strop, Write
from torch import Tensor, nn
from torch.fx.node import Node

import strop.compiler.ir.dialect  # noqa: F401  (the table names its operators)
import strop.compiler.lower.onnx.rules  # noqa: F401  (fills the table)
from strop.compiler import Model, build
from strop.compiler.check.metrics import (
    missed_metrics,
    require_measure,
    require_metrics,
    require_same_metrics,
)
from strop.compiler.frontend.evaluation import evaluate
from strop.compiler.ir.builder import Builder
from strop.compiler.lower.onnx.table import TABLE
from strop.compiler.recipes.budget import Budget
from strop.compiler.recipes.loading import parse_recipe
from strop.compiler.recipes.recipe import Recipe
from strop.compiler.recipes.text import recipe_text
from strop.compiler.rewriting.passes import Pass, RulePass
from strop.compiler.rewriting.pattern import Match, Op, Var
from strop.compiler.rewriting.rules import Log, Rule
from strop.compiler.util.errors import BudgetError, UsageError

aten = torch.ops.aten


def budget(**limits: float) -> Budget:
    return Budget.model_validate({"metrics": {"m": limits}})


def miss(original: float, found: float, **limits: float) -> str | None:
    return missed_metrics(budget(**limits), {"m": original}, {"m": found}).get("m")


# Limits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "good", "bad", "says"),
    [
        ({"max_drop": 0.25}, 0.5, 0.25, "a drop of 0.5 (budget: max_drop 0.25)"),
        ({"max_rise": 0.25}, 1.0, 1.5, "a rise of 0.75 (budget: max_rise 0.25)"),
        ({"min": 0.5}, 0.5, 0.25, "0.25 for the artifact (budget: min 0.5)"),
        ({"max": 0.5}, 0.5, 1.0, "1 for the artifact (budget: max 0.5)"),
        ({"max_drop": 0.0}, 0.75, 0.5, "a drop of 0.25 (budget: max_drop 0)"),
        ({"min": 0.5, "max_drop": 0.5}, 0.5, 0.25, "(budget: min 0.5)"),
    ],
)
def test_a_metric_is_held_to_its_limits(
    limits: dict[str, float], good: float, bad: float, says: str
) -> None:
    assert miss(0.75, good, **limits) is None
    said = miss(0.75, bad, **limits)
    assert said is not None
    assert said.startswith(f"m is 0.75 for the original and {bad:g} for the artifact")
    assert says in said


@pytest.mark.parametrize("kind", [float, np.float32])
def test_the_rounding_of_a_mean_in_float32_is_no_drop(kind: Any) -> None:
    for right in range(2, 100):
        before, after = float(kind(right / 100)), float(kind((right - 1) / 100))
        assert miss(before, after, max_drop=0.01) is None
        assert miss(before, after, max_drop=0.0099) is not None
        assert miss(before, after, min=(right - 1) / 100) is None


def test_a_metric_without_a_budget_may_be_anything() -> None:
    assert missed_metrics(Budget(), {"m": 1.0}, {"m": 0.0}) == {}
    two = {"m": 1.0, "n": 1.0}
    assert missed_metrics(budget(max_drop=0.1), two, {"m": 1.0, "n": 0.0}) == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("max_dorp = 0.1", "unknown key 'max_dorp'; did you mean 'max_drop'?"),
        ("max_drop = -0.1", "budget.metrics.accuracy.max_drop: "),
        ("max_drop = 'low'", "budget.metrics.accuracy.max_drop: "),
        ("min = nan", "budget.metrics.accuracy.min: "),
        ("max = inf", "budget.metrics.accuracy.max: "),
        ("", "budget.metrics.accuracy: the budget of a metric needs max_drop, max_rise, min or"),
    ],
)
def test_a_mistake_in_a_budget_for_a_metric_is_told(text: str, says: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_recipe(f"name = 'r'\n[budget.metrics.accuracy]\n{text}", "it")
    assert says in str(raised.value)


def test_a_budget_for_a_metric_reads_back_and_can_be_set() -> None:
    text = 'name = "r"\n[budget.metrics]\naccuracy = {max_drop = 0.01}\n"f1.macro" = {min = 0.5}'
    recipe = parse_recipe(text, "it")
    assert parse_recipe(recipe_text(recipe), "text") == recipe
    made = recipe.override(
        "budget.metrics.accuracy.max_drop=0.5", "budget.metrics.f1.macro.max=1",
        "budget.metrics.loss.max_rise=2",
    )  # fmt: skip
    assert made.values()["budget"]["metrics"] == {
        "accuracy": {"max_drop": 0.5}, "f1.macro": {"min": 0.5, "max": 1.0},
        "loss": {"max_rise": 2.0},
    }  # fmt: skip
    assert recipe.values()["budget"]["metrics"]["accuracy"] == {"max_drop": 0.01}
    with pytest.raises(UsageError, match="did you mean 'max_drop'"):
        recipe.override("budget.metrics.accuracy.max_dropp=0.5")
    for wrong in ("budget.metrics=3", "budget.metrics.loss=3"):
        with pytest.raises(UsageError, match=f"--set: {wrong.partition('=')[0]}: "):
            recipe.override(wrong, "budget.metrics.loss.max=1")


@pytest.mark.parametrize(
    "value", [True, 1, np.float32(1), np.int64(1), np.bool_(True), torch.tensor(1), torch.ones(())]
)
def test_a_metric_is_any_single_number(value: Any) -> None:
    assert evaluate(lambda run: {"m": value}, lambda: tuple, "it") == {"m": 1.0}


@pytest.mark.parametrize("value", ["1", None, 1j, [1.0], torch.ones(2), np.complex64(1)])
def test_a_metric_that_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="it must return numbers by name"):
        evaluate(lambda run: {"m": value}, lambda: tuple, "it")


def test_metrics_and_a_measure_are_asked_for_where_the_budget_names_them() -> None:
    require_measure(Budget(), has_measure=False)
    require_measure(budget(min=1), has_measure=True)
    with pytest.raises(UsageError, match="a budget for 'm', and the model has nothing"):
        require_measure(budget(min=1), has_measure=False)
    require_metrics(Budget(), {})
    require_metrics(budget(min=1), {"m": 0.0})
    require_same_metrics({"m": 1.0}, {"m": 0.0}, "the artifact")
    with pytest.raises(
        UsageError, match=r"the artifact \(none\) than for the original \('a', 'b'\)"
    ):
        require_same_metrics({"a": 1.0, "b": 1.0}, {}, "the artifact")


# Builds -----------------------------------------------------------------------------------------

X = torch.linspace(-2, 2, 32).reshape(2, 16)


class Steps(nn.Module):
    """Two operators, each of which a pass can make worse."""

    def forward(self, x: Tensor) -> Tensor:
        """[batch, rows] -> the same."""
        return x.tanh().sin()


def closeness(run: Any) -> dict[str, float]:
    """One less the mean distance from what the module gives; the same for equal outputs."""
    (found,) = run(x=X)
    return {"closeness": 1 - float(np.abs(found - Steps()(X).numpy()).mean())}


def steps(**more: Any) -> Model:
    return Model(Steps().eval(), {"x": X}, **({"evaluate": closeness} | more))


class TwiceAsMuch(Rule):
    """Wrong: the output is doubled."""

    name = "twice"
    pattern = Op(aten.sin.default, Var("x"))

    def rewrite(self, match: Match, build: Builder) -> Node:
        return build.call(aten.mul.Tensor, build.call(aten.sin.default, match["x"]), 2)


class ALittleMore(Rule):
    """Wrong by little: the tanh is a percent larger."""

    name = "more"
    pattern = Op(aten.tanh.default, Var("x"))

    def rewrite(self, match: Match, build: Builder) -> Node:
        return build.call(aten.mul.Tensor, build.call(aten.tanh.default, match["x"]), 1.01)


class Shifted(Rule):
    """Right: a sine is a cosine, a quarter turn later."""

    name = "shifted"
    pattern = Op(aten.sin.default, Var("x"))

    def rewrite(self, match: Match, build: Builder) -> Node:
        return build.call(aten.cos.default, build.call(aten.sub.Tensor, match["x"], math.pi / 2))


@dataclass(frozen=True)
class Shifts(RulePass):
    """Changes the operator, and no number."""

    name = "shifts"

    def rules(self) -> tuple[Rule, ...]:
        return (Shifted(),)


@dataclass(frozen=True)
class Doubles(RulePass):
    """Makes the metric fall."""

    name = "doubles"

    def rules(self) -> tuple[Rule, ...]:
        return (TwiceAsMuch(),)


@dataclass(frozen=True)
class Grows(RulePass):
    """Makes the metric fall by little."""

    name = "grows"

    def rules(self) -> tuple[Rule, ...]:
        return (ALittleMore(),)


@dataclass(frozen=True)
class Idle(Pass):
    """Changes nothing."""

    name = "idle"

    def apply(self, program: Any, log: Log) -> None:
        pass


def recipe(*passes: Pass, **limits: float) -> Recipe:
    held = Budget.model_validate({"metrics": {"closeness": limits}})
    return Recipe(name="r", budget=held).insert(*passes)


def refusal(model: Model, out: Path, held: Recipe, **how: Any) -> str:
    with pytest.raises(BudgetError) as caught:
        build(model, out, held, **how)
    assert not out.exists()
    return str(caught.value)


def test_a_metric_that_keeps_to_its_budget_is_recorded_with_it(tmp_path: Path) -> None:
    held = recipe(Grows(), max_drop=0.05, min=0.9)
    manifest = build(steps(), tmp_path / "out", held).manifest
    assert manifest["metrics"]["original"]["closeness"] == 1
    assert 0.95 < manifest["metrics"]["artifact"]["closeness"] < 1
    assert manifest["recipe"]["budget"] == {
        "metrics": {"closeness": {"max_drop": 0.05, "min": 0.9}}
    }
    page = (tmp_path / "out" / "report.html").read_text()
    assert "kept to the budget: the user’s own metrics below." in page
    assert "max_drop 0.05" in page


def test_the_pass_after_which_a_metric_fell_is_named_with_both_values(tmp_path: Path) -> None:
    model = steps()
    held = recipe(Idle(), Grows(), Idle(), Doubles(), Idle(), max_drop=0.1)
    said = refusal(model, tmp_path / "out", held)
    assert said.startswith(
        "1 of 1 metrics miss their budget:\n  closeness is 1 for the original and"
    )
    assert "a drop of 0." in said
    assert "(budget: max_drop 0.1)" in said
    suspect = said.partition("Suspected: ")[2]
    assert suspect.startswith("pass 'doubles' (closeness 0.99")
    assert " before it, 0." in suspect
    little = refusal(model, tmp_path / "out", recipe(Grows(), Doubles(), max_drop=1e-4))
    assert "Suspected: pass 'grows' (closeness 1 before it, 0.99" in little


def test_few_programs_are_measured_to_find_the_pass(tmp_path: Path) -> None:
    asked = []

    def counted(run: Any) -> dict[str, float]:
        asked.append(run)
        return closeness(run)

    model = steps(evaluate=counted)
    passes = [Grows() for _ in range(14)]
    refusal(model, tmp_path / "out", recipe(Doubles(), *passes, max_drop=0.3))
    # The original twice, the file, the last of 16 programs, and four to find the first.
    assert len(asked) == 3 + 1 + 4


def test_a_lowering_that_makes_a_metric_fall_is_named_with_the_operator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = {"default": lambda on, x: on.op("Sin", on.value(x))}
    monkeypatch.setitem(TABLE, aten.cos.default, wrong)
    model = steps()
    said = refusal(model, tmp_path / "out", recipe(Grows(), Shifts(), max_drop=0.1))
    assert (
        "Suspected: the lowering, first at %cos_default = aten.cos (test_metric_budget.py:" in said
    )


def test_a_capture_that_makes_a_metric_fall_is_named(tmp_path: Path) -> None:
    class Two(Steps):
        def forward(self, x: Tensor) -> Tensor:
            once = super().forward(x)
            return once * 2 if torch.compiler.is_exporting() else once

    model = Model(Two().eval(), {"x": X}, evaluate=closeness)
    said = refusal(model, tmp_path / "out", recipe(max_drop=0.1))
    assert "Suspected: capture (closeness 1 before it, 0.3" in said


def test_a_pass_after_which_a_metric_cannot_be_measured_is_named(tmp_path: Path) -> None:
    calls = []

    def fails_after(run: Any) -> dict[str, float]:
        found = closeness(run)
        calls.append(found)
        # The original, the file, the original once more; then programs, the captured one last.
        if len(calls) > 3 and found["closeness"] < 0.9:
            raise ValueError("no such row")
        return found

    model = steps(evaluate=fails_after)
    said = refusal(model, tmp_path / "out", recipe(Doubles(), max_drop=0.1))
    assert "Suspected: pass 'doubles' (evaluate raised ValueError: no such row)" in said


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (ValueError("no such row"), "failed: evaluate raised ValueError: no such row at "),
        (SystemExit(7), "raised SystemExit: 7"),
        ({"other": 1.0}, "other metrics for the original, run once more, ('other') than for"),
    ],
)
def test_a_miss_is_told_though_evaluate_fails_in_the_search_for_the_pass(
    tmp_path: Path, what: Any, says: str
) -> None:
    calls = []

    def fails_later(run: Any) -> Any:
        calls.append(run)
        if len(calls) < 3:  # the original and the file; then the original once more
            return closeness(run)
        if isinstance(what, dict):
            return what
        raise what

    model = steps(evaluate=fails_later)
    said = refusal(model, tmp_path / "out", recipe(Doubles(), max_drop=0.1))
    assert said.startswith("1 of 1 metrics miss their budget:\n  closeness is 1 for the original")
    assert "`strop debug bisect` says which. Looking for the step failed: " in said
    assert says in said
    assert said.endswith("Nothing was written.")


def test_a_pass_after_which_evaluate_gives_other_metrics_is_named(tmp_path: Path) -> None:
    def other_of_wrong_ones(run: Any) -> dict[str, float]:
        found = closeness(run)
        calls.append(found)
        return found if len(calls) <= 3 or found["closeness"] > 0.9 else {"other": 1.0}

    calls: list[Any] = []
    model = steps(evaluate=other_of_wrong_ones)
    said = refusal(model, tmp_path / "out", recipe(Doubles(), max_drop=0.1))
    assert "Suspected: pass 'doubles' (evaluate returned other metrics for the program" in said


def test_an_original_that_misses_the_budget_itself_is_said(tmp_path: Path) -> None:
    model = steps()
    said = refusal(model, tmp_path / "out", recipe(min=1.5))
    assert "closeness is 1 for the original and 1 for the artifact (budget: min 1.5)" in said
    assert "Suspected: no step: the original itself misses the budget." in said


def test_a_model_that_nobody_holds_or_that_is_another_is_told_without_a_guess(
    tmp_path: Path,
) -> None:
    held = recipe(Doubles(), max_drop=0.1)
    with pytest.raises(BudgetError, match="`strop debug bisect` says which"):
        build(steps(), tmp_path / "out", held)

    class Other(Steps):
        def forward(self, x: Tensor) -> Tensor:
            return x

    def other() -> Model:
        return Model(Other().eval(), {"x": X}, evaluate=closeness)

    said = refusal(steps(), tmp_path / "out", held, again=other)
    assert "set a seed for what is random in it" in said


FACTORY = """
import numpy as np
import torch
from strop.compiler import Model
class Net(torch.nn.Module):
    def forward(self, x):
        return x.tanh()
def make(evaluate=None):
    return Model(Net().eval(), dict(x=torch.ones(2, 4)), evaluate=evaluate)
calls = []
def count(run):
    calls.append(run)
    return len(calls)
def plain(): return make()
def good(): return make(lambda run: {"accuracy": run(x=torch.ones(2, 4))[0].mean()})
def none(): return make(lambda run: {})
def nan(): return make(lambda run: {"accuracy": float("nan")})
def later(): return make(lambda run: {"accuracy": 1.0 if count(run) == 1 else float("nan")})
def other(): return make(lambda run: {"accuracy" if count(run) == 1 else "loss": 1.0})
"""


@pytest.mark.parametrize(
    ("factory", "setting", "says"),
    [
        ("plain", "accuracy.max_drop=0.1", "for 'accuracy', and the model has nothing that"),
        ("good", "acuracy.max_drop=0.1", "evaluate did not return; did you mean 'accuracy'?"),
        ("none", "accuracy.max_drop=0.1", "evaluate did not return; it returned none"),
        ("nan", "accuracy.max_drop=0.1", "evaluate returned nan for 'accuracy' of the original"),
        ("later", "accuracy.max_drop=0.1", "evaluate returned nan for 'accuracy' of the artifact"),
        ("other", "accuracy.max_drop=0.1", "other metrics for the artifact ('loss') than for the"),
        ("good", "accuracy.max_drop=x", "budget.metrics.accuracy.max_drop"),
        ("good", "accuracy=0.1", "budget.metrics.accuracy"),
    ],
)  # fmt: skip
def test_a_metric_that_cannot_be_held_to_its_budget_is_refused(
    strop: Strop, write: Write, tmp_path: Path, factory: str, setting: str, says: str
) -> None:
    source = write(FACTORY).replace(":make", f":{factory}")
    result = strop("build", source, "-o", tmp_path / "out", "--set", f"budget.metrics.{setting}")
    assert (result.code, says in " ".join(result.err.split())) == (2, True), result.err
    assert not (tmp_path / "out").exists()


def test_a_model_without_a_measure_is_refused_before_it_is_captured(tmp_path: Path) -> None:
    told: list[str] = []
    with pytest.raises(UsageError, match="nothing that measures it"):
        build(steps(evaluate=None), tmp_path / "out", recipe(min=0.5), progress=told.append)
    assert told == []


def test_a_budget_on_the_command_line_names_the_pass(
    strop: Strop, write: Write, tmp_path: Path
) -> None:
    source = write(
        FACTORY
        + dedent("""
        from strop.compiler import Op, Rule, Var
        class Halves(Rule):
            name = "halves"
            pattern = Op(torch.ops.aten.tanh.default, Var("x"))
            def rewrite(self, match, build):
                tanh = build.call(torch.ops.aten.tanh.default, match["x"])
                return build.call(torch.ops.aten.mul.Tensor, tanh, 0.5)
        """)
    ).replace(":make", ":good")

    def built(limit: float) -> Result:
        file = source.rpartition(":")[0]
        return strop(
            "build", source, "-o", tmp_path / "out", "--pass", f"{file}:Halves{{id=mine}}",
            "--set", "budget.max_error=1", "--set", f"budget.metrics.accuracy.max_drop={limit}",
        )  # fmt: skip

    result = built(0.1)
    assert result.code == 3, result.err
    said = " ".join(result.err.split())
    assert "accuracy is 0.761594 for the original and 0.380797 for the artifact" in said
    assert "Suspected: pass 'mine' (accuracy 0.761594 before it, 0.380797 after it)" in said
    assert built(0.4).code == 0
    values = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert values["recipe"]["budget"]["metrics"] == {"accuracy": {"max_drop": 0.4}}
