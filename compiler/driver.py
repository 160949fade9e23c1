"""``build()``: capture, passes, lowering, writing, the check, in that order."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

import strop.compiler.dialect  # noqa: F401  (registers the strop:: operators)
from strop.compiler.artifact import (
    MANIFEST,
    MODEL,
    Artifact,
    read_artifact,
    require_free,
    write_json,
)
from strop.compiler.capture import capture
from strop.compiler.check import Case, Comparison, check_file, check_program, make_cases
from strop.compiler.errors import BudgetError, UsageError, did_you_mean
from strop.compiler.evaluation import evaluate, file_runner, module_runner
from strop.compiler.inputs import Inputs, read_inputs
from strop.compiler.instrument import Dump, Recorder
from strop.compiler.lower.onnx.choices import Choices, shipped
from strop.compiler.lower.onnx.emitter import lower_to_onnx
from strop.compiler.lower.onnx.write import write_model
from strop.compiler.manifest import Record, build_record, manifest
from strop.compiler.model import Model
from strop.compiler.original import in_dtype, weights_not_finite
from strop.compiler.passes import Instrument
from strop.compiler.program import Program
from strop.compiler.recipe import Budget, Recipe, load_recipe
from strop.compiler.staging import staged
from strop.compiler.target import Target, get_target
from strop.compiler.verify import verify

Progress = Callable[[str], None]


@dataclass
class Stages:
    """Wall time of every stage, and who is told that it begins."""

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage."""
        self.progress(name)
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(time.perf_counter() - start, 4)


def build(
    model: Model,
    out: str | os.PathLike[str],
    recipe: str | Recipe = "cpu-fp32",
    target: str | None = None,
    *,
    force: bool = False,
    dump_ir: str | os.PathLike[str] | None = None,
    choices: Choices | None = None,
    progress: Progress = lambda stage: None,
) -> Artifact:
    """Build a model into an artifact folder, and check the written file against the original.

    Args:
        model: what to build.
        out: the folder to write; replaced if it is an artifact.
        recipe: a built-in name, a TOML path, or a ``Recipe``.
        target: overrides the recipe's.
        force: replace ``out`` even if it is not an artifact.
        dump_ir: a folder for numbered IR text, one file per pass that changed something.
        choices: measured emitter choices; those shipped for the target by default.
        progress: told the name of each stage as it begins.

    Raises:
        UsageError: the model or the recipe is wrong.
        UnsupportedError: the model cannot be captured or lowered.
        RuntimeRefusedError: the runtime does not take the file.
        BudgetError: the file is too far from the original; nothing is written.
    """
    recipe = load_recipe(recipe) if isinstance(recipe, str) else recipe
    place = get_target(target or recipe.target)
    recipe = recipe.model_copy(update={"target": place.name})
    require_free(Path(out), force)
    pipeline = recipe.pipeline()
    stages = Stages(progress)
    recorder = Recorder(announce=lambda name: progress(f"pass {name}"))
    dumps: list[Instrument] = [Dump(Path(dump_ir))] if dump_ir else []
    measure = model.evaluate
    captured = _front(model, place, stages)
    # The original weights are not needed any more; a caller that kept none of its own frees them.
    del model
    with stages.stage("passes"), _collector_paused():
        program = pipeline.run(captured.program, [recorder, *dumps])
    _check_passes(captured, recorder, recipe.budget, stages)
    recorder.programs.clear()
    captured.program = program
    with stages.stage("lower"), _collector_paused():
        lowered = lower_to_onnx(program, place, choices or shipped(place.name))
    with staged(Path(out)) as stage:
        with stages.stage("write"):
            files = write_model(lowered, stage / MODEL)
        program.weights.clear()
        del lowered
        gc.collect()
        with stages.stage("check"):
            results = check_file(stage / MODEL, place, captured.cases)
            _hold_to_budget(results, recipe.budget, "the lowering or the runtime")
            found = evaluate(measure, lambda: file_runner(stage / MODEL, place))
        metrics = {"original": captured.metrics, "artifact": found} if found else {}
        record = Record(
            recipe, program.contract, recorder.records, results, metrics, captured.notes
        )
        write_json(stage / MANIFEST, manifest(record, stage, files))
        write_json(stage / "build.json", build_record(stages.seconds, recorder.records))
    return read_artifact(out)


def compile_program(
    model: Model, recipe: Recipe, stop_after: str, dump_ir: str | None = None
) -> Program:
    """Capture and run the passes, up to and including one: what ``--stop-after`` prints.

    Raises:
        UsageError: the recipe has no such pass; "capture" runs none.
    """
    pipeline = recipe.pipeline()
    names = ["capture", *(s.name for s in pipeline.steps)]
    if stop_after not in names:
        raise UsageError(f"--stop-after: no pass '{stop_after}'{did_you_mean(stop_after, names)}")
    captured = _front(model, get_target(recipe.target), Stages(lambda stage: None))
    if stop_after == "capture":
        return captured.program
    return pipeline.run(captured.program, [Dump(Path(dump_ir))] if dump_ir else [], stop_after)


@dataclass
class Captured:
    """What the original module leaves behind: its program, and what it gives and measures."""

    program: Program
    cases: list[Case]
    metrics: dict[str, float]
    notes: list[str]


def _front(model: Model, target: Target, stages: Stages) -> Captured:
    """Check what the user gave, compute references, capture."""
    module, notes = _ready_module(model, target)
    with torch.no_grad():
        signature, example, calibration = read_inputs(model)
        example = _as_computed(example)
        calibration = [_as_computed(c) for c in calibration]
        with stages.stage("reference"):
            cases = make_cases(module, signature, calibration or [example])
            metrics = evaluate(model.evaluate, lambda: module_runner(module, signature))
        with stages.stage("capture"):
            program = capture(module, signature, example)
            verify(program)
    return Captured(program, cases, metrics, notes)


def _ready_module(model: Model, target: Target) -> tuple[torch.nn.Module, list[str]]:
    module = model.module
    if not isinstance(module, torch.nn.Module):
        raise UsageError(f"Model.module is {type(module).__name__}, not a torch.nn.Module")
    training = [name for name, part in module.named_modules() if part.training]
    if training:
        which = f"its submodule '{training[0]}'" if training[0] else "the module"
        raise UsageError(
            f"{which} is in train mode: dropout and batch norm would behave as in training. "
            "Call module.eval() in the factory."
        )
    bad = list(weights_not_finite(module))
    if bad:
        shown = ", ".join(bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
        raise UsageError(f"weights hold NaN or Inf: {shown}")
    ready = in_dtype(module, torch.float32)
    if ready is module:
        return module, []
    found = sorted({str(p.dtype).removeprefix("torch.") for p in module.parameters()})
    return ready, [f"weights were {', '.join(found)}; built in float32 for {target.name}"]


def _as_computed(inputs: Inputs) -> Inputs:
    return {
        n: t.float() if t.is_floating_point() and t.dtype != torch.float64 else t
        for n, t in inputs.items()
    }


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Passes and lowering make many small objects that live: a full collection finds nothing."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _check_passes(captured: Captured, recorder: Recorder, budget: Budget, stages: Stages) -> None:
    """Run the optimized program in torch; on a miss, find the step after which it is missed."""
    programs = [("capture", captured.program)]
    programs += [(f"pass '{name}'", program) for name, program in recorder.programs]
    smallest = min(captured.cases, key=lambda c: sum(t.numel() for t in c.inputs.values()))
    # The owner's own data, and the sizes at which shapes degenerate: two runs, not all.
    cases = list({case.name: case for case in (captured.cases[0], smallest)}.values())
    with stages.stage("check passes"):
        if not _missed(check_program(programs[-1][1], cases), budget):
            return
        for suspect, program in programs:
            _hold_to_budget(check_program(program, cases), budget, suspect)


def _missed(results: list[Comparison], budget: Budget) -> list[Comparison]:
    return [r for r in results if r.misses(budget)]


def _hold_to_budget(results: list[Comparison], budget: Budget, suspect: str) -> None:
    missed = _missed(results, budget)
    if not missed:
        return
    worst = sorted(missed, key=lambda r: -r.max_error)[:5]
    lines = "\n  ".join(r.misses(budget) or "" for r in worst)
    raise BudgetError(
        f"{len(missed)} of {len(results)} comparisons with the original miss the budget:\n"
        f"  {lines}\nSuspected: {suspect}. Nothing was written."
    )
