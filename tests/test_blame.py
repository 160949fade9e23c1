"""A refusal names the step that is to blame: capture, a pass, or an operator of the lowering."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Strop, Write
from torch import Tensor, nn
from torch.fx.node import Node

import strop.compiler.ir.dialect  # noqa: F401  (the table names its operators)
import strop.compiler.lower.onnx.rules  # noqa: F401  (fills the table)
from strop.compiler import Model, build, load_recipe
from strop.compiler.driver import optimize
from strop.compiler.ir.builder import Builder
from strop.compiler.lower.onnx.table import TABLE
from strop.compiler.recipes.recipe import Recipe
from strop.compiler.rewriting.passes import Pass, RulePass, Step
from strop.compiler.rewriting.pattern import Match, Op, Var
from strop.compiler.rewriting.rules import Rule
from strop.compiler.util.errors import BudgetError, VerifyError

aten = torch.ops.aten


class Sums(nn.Module):
    """Counts up along the rows."""

    def forward(self, x: Tensor) -> Tensor:
        """[batch, rows] -> the same."""
        return x.cumsum(1).tanh() + x.cumsum(1)


def sums() -> Model:
    return Model(Sums().eval(), {"x": torch.ones(2, 6)}, {"x": {1: ("rows", 2, 64)}})


class Clamp(Rule):
    """Right up to 20 rows of ones."""

    name = "clamp"
    pattern = Op(aten.cumsum.default, Var("x"), Var("dim"), name="sum")

    def rewrite(self, match: Match, build: Builder) -> Node:
        again = build.call(aten.cumsum.default, match["x"], match["dim"])
        return build.call(aten.clamp.default, again, 0, 20)


@dataclass(frozen=True)
class Clamps(RulePass):
    """Goes wrong at large sizes alone."""

    name = "clamps"

    def rules(self) -> tuple[Rule, ...]:
        return (Clamp(),)


class Clamping(Recipe):
    """The usual passes, with ``clamps`` before the last."""

    def pipeline(self) -> Any:
        """Those of the recipe, and one more."""
        usual = super().pipeline()
        steps = (*usual.steps[:-1], Step("clamps", Clamps()), usual.steps[-1])
        return type(usual)(steps)


def clamping() -> Recipe:
    return Clamping(**load_recipe("cpu-fp32").model_dump())


def refusal(model: Model, out: Path, recipe: Recipe | str = "cpu-fp32", **how: Any) -> str:
    with pytest.raises(BudgetError) as caught:
        build(model, out, recipe, **how)
    assert not out.exists()
    return str(caught.value).partition("Suspected: ")[2]


def test_a_pass_that_goes_wrong_at_large_sizes_alone_is_named(tmp_path: Path) -> None:
    model = sums()
    said = refusal(model, tmp_path / "out", clamping())
    assert said.startswith("pass 'clamps'.")


def test_a_miss_is_told_though_the_model_cannot_be_made_once_more(tmp_path: Path) -> None:
    def again() -> Model:
        raise MemoryError("no room")

    said = refusal(sums(), tmp_path / "out", clamping(), again=again)
    assert "Looking for the step failed: MemoryError: no room. Nothing was written." in said


def wrong_row(target: Any, emit: Any) -> tuple[Any, Any, Any]:
    return TABLE, target, {"default": emit}


def test_an_operator_whose_lowering_is_wrong_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(*wrong_row(aten.tanh.default, lambda on, x: on.op("Sin", on.value(x))))
    model = sums()
    said = refusal(model, tmp_path / "out")
    assert said.startswith("the lowering, first at %tanh = aten.tanh (test_blame.py:")


def test_an_operator_that_is_off_by_little_is_named_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def emit(on: Any, x: Any) -> Any:
        return on.op("Mul", on.op("Tanh", on.value(x)), on.constant(1.005, torch.float32))

    monkeypatch.setitem(*wrong_row(aten.tanh.default, emit))
    model = sums()
    assert refusal(model, tmp_path / "out").startswith("the lowering, first at %tanh = aten.tanh")


def test_a_model_that_nobody_holds_is_told_without_a_guess(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(*wrong_row(aten.tanh.default, lambda on, x: on.op("Sin", on.value(x))))
    with pytest.raises(BudgetError, match="`strop debug bisect` says which"):
        build(sums(), tmp_path / "out")
    said = refusal(sums(), tmp_path / "out", again=sums)
    assert said.startswith("the lowering, first at %tanh")


RANDOM = """
import torch
from strop.compiler import Model
class Random(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)
    def forward(self, x):
        return self.linear(x).tanh()
def make():
    {seed}
    return Model(Random().eval(), dict(x=torch.ones(2, 4)))
"""


@pytest.mark.parametrize("seeded", [True, False])
def test_a_factory_is_called_again_and_must_give_the_same_model(
    strop: Strop, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seeded: bool
) -> None:
    monkeypatch.setitem(*wrong_row(aten.tanh.default, lambda on, x: on.op("Sin", on.value(x))))
    source = write(RANDOM.format(seed="torch.manual_seed(0)" if seeded else "pass"))
    result = strop("build", source, "-o", tmp_path / "out")
    assert result.code == 3
    seed = "set a seed for what is random in it"
    said = "Suspected: the lowering, first at %" if seeded else seed
    assert said in " ".join(result.err.split())


def test_a_program_that_is_wrong_as_captured_is_blamed_on_no_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(program: Any) -> None:
        raise VerifyError("it is not typed as it runs")

    monkeypatch.setattr(optimize, "verify_types", wrong)
    with pytest.raises(VerifyError) as caught:
        build(sums(), tmp_path / "out")
    assert caught.value.__notes__ == ["as captured, before any pass"]


def test_a_program_that_a_pass_makes_wrong_is_blamed_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(program: Any) -> None:
        if "clamp" in str(program):
            raise VerifyError("it is not typed as it runs")

    monkeypatch.setattr(optimize, "verify_types", wrong)
    monkeypatch.setattr(
        "strop.compiler.driver.optimize.is_strops", lambda run: isinstance(run, Pass)
    )
    with pytest.raises(VerifyError) as caught:
        build(sums(), tmp_path / "out", clamping())
    assert caught.value.__notes__ == ["after pass 'clamps'"]
