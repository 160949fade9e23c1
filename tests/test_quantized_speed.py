"""A quantized model that is slower than in float is refused, unless the budget allows it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from conftest import Strop
from program_tools import program_of
from torch import nn

from strop.compiler.driver import speed
from strop.compiler.driver.speed import FloatFiles, hold_to_time
from strop.compiler.driver.unquantized import in_float
from strop.compiler.frontend.cases import Case
from strop.compiler.ir.contract import Contract
from strop.compiler.recipes.budget import Budget
from strop.compiler.rewriting.context import Context
from strop.compiler.rewriting.passes import Pass, Pipeline
from strop.compiler.rewriting.recorder import Recorder
from strop.compiler.util.errors import BudgetError
from strop.compiler.util.stages import Stages
from strop.passes.cleanup.noops import Noops
from strop.passes.distill.recover import Recover
from strop.passes.fuse.residual import FuseResiduals
from strop.passes.quantize.control.control import AccuracyControl
from strop.passes.quantize.dynamic import QuantizeDynamic

Rounds = list[tuple[float, float]]
Held = Callable[..., float]


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    """``held(rounds, max_time)``: the check on such times; it records how many it asked for."""

    @contextmanager
    def opened(folder: Path, target: object) -> Iterator[None]:
        yield None

    def run(rounds: Rounds, max_time: float | None = None) -> float:
        def turns(*_: object) -> Iterator[tuple[float, float]]:
            yield from rounds
            raise AssertionError("it asks for more rounds than there are")

        monkeypatch.setattr(speed, "turns", turns)
        monkeypatch.setattr(speed, "open_isolated", opened)
        recipe = SimpleNamespace(budget=Budget(max_time=max_time))
        job: Any = SimpleNamespace(recipe=recipe, stages=Stages(), target=None)
        session, contract, case = None, Contract((), (), ()), Case("x", {}, {})
        files = FloatFiles(Path(), ("quantize",), contract)
        return hold_to_time(cast(Any, session), files, case, contract, job)

    return run


@contextmanager
def exhausted() -> Iterator[None]:
    """All rounds were looked at, and nothing was refused."""
    with pytest.raises(AssertionError, match="more rounds"):
        yield


def test_what_is_clearly_faster_is_measured_a_few_times_only(held: Held) -> None:
    assert held([(1.0, 3.0), (1.0, 2.0), (1.7, 2.0)]) == 2.0


@pytest.mark.parametrize("third", [(1.9, 2.0), (2.5, 2.0)])
def test_what_is_not_clear_is_measured_further(held: Held, third: tuple[float, float]) -> None:
    with exhausted():
        held([(1.0, 3.0), (1.0, 2.0), third, (1.0, 2.0), (1.0, 2.0)])


NINE = 9


@pytest.mark.parametrize(
    ("ours", "theirs", "max_time", "refused"),
    [
        (1.2, 1.0, None, True),
        (1.04, 1.0, None, False),  # noise, of any time
        (0.05, 0.02, None, False),  # too short to be told apart
        (1.4, 1.0, 1.5, False),
        (1.6, 1.0, 1.5, True),
        (0.9, 1.0, 0.5, True),
        (0.9, 1.0, None, False),
    ],
)
def test_slower_is_refused_beyond_noise(
    held: Held,
    monkeypatch: pytest.MonkeyPatch,
    ours: float,
    theirs: float,
    max_time: float | None,
    refused: bool,
) -> None:
    # A machine that was busy for some rounds changes nothing.
    rounds = [(ours, theirs)] * 5 + [(ours * 3, theirs)] * 2 + [(ours, theirs * 3)] * 2
    monkeypatch.setattr(speed, "_until_clear", lambda turns, _: [next(turns) for _ in range(NINE)])
    if not refused:
        assert held(rounds, max_time) == theirs
        return
    with pytest.raises(BudgetError) as error:
        held(rounds, max_time)
    said = str(error.value)
    assert f"{ours / theirs:.2f} times as long as without 'quantize' ({theirs:g} ms)" in said
    assert f"max_time {max_time or 1:g}" in said
    assert f"--set budget.max_time={ours / theirs + 0.1:.1f}" in said


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(self.two(torch.relu(self.one(x))), training=False)


def compared(*passes: Pass, context: Context | None = None) -> tuple[str | None, tuple[str, ...]]:
    program = program_of(Small(), torch.randn(4, 8))
    pipeline = Pipeline.of(passes).within(replace(context or Context(), teacher=program))
    recorder = Recorder()
    pipeline.run(program, [recorder])
    found = in_float(program, pipeline.steps, recorder.records, recorder.programs)
    return (str(found.program), found.without) if found else (None, ())


def test_the_program_in_float_went_through_all_steps_that_do_not_quantize() -> None:
    program = program_of(Small(), torch.randn(4, 8))
    without = Noops().run(FuseResiduals().run(program).program).program
    batches = Context(calibration=[{"input_0": torch.randn(4, 8)}])
    controlled = AccuracyControl(min_cosine=0.5)
    # What is behind a step that quantizes and learns has learned from what was quantized.
    learns = Recover(steps=1, minutes=0)
    for quantize in (QuantizeDynamic(), controlled):
        text, names = compared(FuseResiduals(), quantize, Noops(), learns, context=batches)
        assert text == str(without)
        assert names == (quantize.name,)
    text, names = compared(QuantizeDynamic(only=("*.one",)), Noops(), QuantizeDynamic())
    assert names == ("quantize", "quantize-2")
    assert text is not None and "linear_w8a8" not in text


def test_without_anything_quantized_there_is_nothing_to_compare() -> None:
    assert compared(Noops())[0] is None
    assert compared(QuantizeDynamic(keep=("*",)))[0] is None


def test_a_build_times_both_and_refuses_the_slower_one(
    strop: Strop, small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, command = tmp_path / "out", ("build", small, "--recipe", "cpu-int8", "-o")
    monkeypatch.setattr(speed, "turns", lambda *_: iter([(2.0, 1.0)] * NINE))
    refused = strop(*command, out)
    assert refused.code == 3
    assert "one run takes 2 ms, 2.00 times as long as without 'quantize' (1 ms)" in refused.err
    assert not out.exists()
    allowed = strop(*command, out, "--set", "budget.max_time=2.1")
    assert allowed.code == 0, allowed.err
    manifest = (out / "manifest.json").read_text()
    assert json.loads(manifest)["recipe"]["budget"]["max_time"] == 2.1
    times = json.loads((out / "build.json").read_text())["milliseconds"]
    assert set(times) == {"original", "artifact", "float"} and times["float"] == 1
