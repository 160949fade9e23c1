"""Pruning until one run takes less time: with a clock that counts, and with a real one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Strop, Write
from program_tools import program_of
from test_prune_pass import TwoLayers

from strop.compiler.driver.clock import TargetClock
from strop.compiler.ir.program import Program
from strop.compiler.recipes.loading import load_recipe
from strop.compiler.rewriting.context import Context
from strop.compiler.rewriting.passes import Pipeline
from strop.compiler.targets.target import CPU
from strop.compiler.util.errors import RuntimeRefusedError, UsageError
from strop.passes.distill.recover import Recover
from strop.passes.prune import goal
from strop.passes.prune.prune import Prune
from strop.passes.prune.sparsify import Sparsify


@dataclass
class Counting:
    """A clock for which a run takes a fixed time and a time for each weight."""

    fixed: float = 0.0
    measured: list[float] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    @contextmanager
    def clock(self, program: Program) -> Iterator[Callable[[Program], float]]:
        whole = self.time(program)

        def relative(other: Program) -> float:
            self.measured.append(self.time(other) / whole)
            return self.measured[-1]

        yield relative

    def time(self, program: Program) -> float:
        return self.fixed + sum(w.numel() for w in program.weights.values())

    def context(self) -> Context:
        return Context(clock=self.clock, say=self.said.append, progress=self.told.append)


@pytest.fixture
def program() -> Program:
    torch.manual_seed(0)
    return program_of(TwoLayers(), torch.randn(4, 8))


def faster(program: Program, clock: Counting, **options: Any) -> Program:
    one = Prune(of="latency", importance="l2", **options)
    return one.run(program, context=clock.context()).program


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_as_little_goes_as_reaches_the_time(program: Program, scope: str) -> None:
    clock = Counting()
    new = faster(program, clock, share=0.4, round_to=1, scope=scope)
    assert 0.57 < clock.time(new) / clock.time(program) <= 0.6
    assert len(clock.measured) <= 7
    assert len([told for told in clock.told if "of the time" in told]) == len(clock.measured)
    (said,) = clock.said
    assert said.startswith(f"pruning left {clock.time(new) / clock.time(program):.0%} of the time")


def test_choices_that_round_to_one_are_measured_once(program: Program) -> None:
    clock = Counting()
    new = faster(program, clock, share=0.7, round_to=16)
    assert new.weights["inner.ups.0.weight"].shape[0] == 16
    assert len(clock.measured) == len(set(clock.measured))


def test_a_time_that_cannot_be_reached_says_how_far_it_goes(program: Program) -> None:
    clock = Counting(fixed=3 * 2192)
    with pytest.raises(
        UsageError, match=r"50% of the latency cannot go: .* 2 groups, 76% are left"
    ):
        faster(program, clock, share=0.5, round_to=1)
    assert len(clock.measured) == 1


def test_without_a_clock_it_says_what_else_can_be_counted(program: Program) -> None:
    with pytest.raises(UsageError, match="of=latency needs a target .*, which only a build has"):
        Prune(of="latency", importance="l2").run(program)


def test_of_several_processes_the_first_one_measures(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Second:
        rank = 1

        def __init__(self, accumulate: int) -> None:
            assert accumulate == 2

        def from_first(self, value: float) -> float:
            assert value == 0.0
            return shares.pop(0)

    shares = [0.1, 0.9, 0.4, 0.9, 0.9, 0.4, 0.9]
    monkeypatch.setattr(goal, "Team", Second)
    monkeypatch.setenv("WORLD_SIZE", "2")
    clock = Counting()
    new = faster(program, clock, share=0.5, round_to=1)
    assert not clock.measured and not shares
    assert new.weights["inner.ups.0.weight"].shape[0] == round(64 * (1 - 0.71875))


def test_what_is_timed_went_through_the_steps_that_come_later(program: Program) -> None:
    seen: list[list[str]] = []

    @contextmanager
    def clock(rest: Any, program: Program) -> Iterator[Callable[[Program], float]]:
        seen.append([step.name for step in rest])
        yield lambda other: 0.5

    pipeline = Pipeline.of([Prune(of="latency", importance="l2"), Recover(), Sparsify()])
    step = pipeline.timed_by(clock).steps[0]
    step.run.run(program, context=step.context)
    assert seen == [["recover", "sparsify"]]


def test_a_target_runs_smaller_programs_as_the_recipe_leaves_them(program: Program) -> None:
    inputs = {"input_0": torch.randn(4, 8)}
    rest = load_recipe("cpu-int8").pipeline().steps
    smaller = Prune(importance="l2").run(program).program
    # A step that learns is left out: this one has nothing to learn from.
    learns = Pipeline.of([Recover()]).steps
    with TargetClock(CPU, inputs, None).against((*rest, *learns), program) as relative:
        assert relative(smaller) > 0
    wrong = {"input_0": torch.randn(4, 9)}
    with (
        pytest.raises(RuntimeRefusedError, match="to time it"),
        TargetClock(CPU, wrong, None).against(rest, program) as relative,
    ):
        relative(smaller)


def test_a_full_disk_is_told(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/dev/null")
    clock = TargetClock(CPU, {"input_0": torch.randn(4, 8)}, None)
    with pytest.raises(UsageError, match="temporary folder"), clock.against((), program):
        pass


WIDE = """
    import torch
    from strop.compiler import Model

    class Wide(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.ups = torch.nn.ModuleList(torch.nn.Linear(128, 2048) for _ in range(2))
            self.downs = torch.nn.ModuleList(torch.nn.Linear(2048, 128) for _ in range(2))

        def forward(self, x):
            for up, down in zip(self.ups, self.downs):
                x = x + down(torch.relu(up(x)))
            return x

    def make():
        torch.manual_seed(0)
        return Model(Wide().eval(), {"x": torch.randn(256, 128)}, {"x": {0: ("batch", 1, 512)}})
"""


@pytest.mark.slow
def test_a_build_reaches_a_share_of_the_time(strop: Strop, write: Write, tmp_path: Path) -> None:
    source, out = write(WIDE), tmp_path / "out"
    pruned = "prune{of=latency,share=0.5,importance=l2}"
    command = ("build", source, "--pass", pruned, "--set", "budget.min_cosine=0")
    command = (*command, "--set", "budget.max_error=100")
    result = strop(*command, "-o", out)
    assert result.code == 0, result.err
    manifest = (out / "manifest.json").read_text()
    (step,) = [p for p in json.loads(manifest)["passes"] if p["name"] == "prune"]
    facts = step["learned"]["facts"]
    for group in facts["groups"].values():
        kept = sum(int(b or a) - int(a) + 1 for a, _, b in
                   (part.partition("-") for part in group["kept"].split(",")))  # fmt: skip
        assert 512 <= kept <= 1280  # half of the time of two matrices, on a machine that is shared
    (told,) = [n for n in json.loads((out / "build.json").read_text())["notes"] if "time" in n]
    assert told.startswith("pruning left ")
    assert "pruning left" not in manifest
    # What was chosen is known the second time, and the same bytes come of it.
    again = tmp_path / "again"
    assert strop(*command, "-o", again).code == 0
    for name in ("model.onnx", "manifest.json"):
        assert (out / name).read_bytes() == (again / name).read_bytes()
