"""``build()``: capture, passes, lowering, writing, the check, in that order."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from strop.compiler.artifact import (
    BUILD,
    MANIFEST,
    MODEL,
    PROVENANCE,
    Artifact,
    read_artifact,
    require_free,
    write_json,
)
from strop.compiler.bundle import write_bundle
from strop.compiler.check import Comparison, check_file, check_program
from strop.compiler.errors import BudgetError, UsageError, did_you_mean
from strop.compiler.evaluation import evaluate, file_runner
from strop.compiler.files import require_folder
from strop.compiler.front import Captured, capture_model
from strop.compiler.instrument import Dump, Recorder, StepRecord
from strop.compiler.latency import quick_look
from strop.compiler.lower.onnx.choices import Choices, shipped
from strop.compiler.lower.onnx.emitter import lower_to_onnx
from strop.compiler.lower.onnx.write import write_model
from strop.compiler.manifest import Record, build_record, manifest
from strop.compiler.model import Model
from strop.compiler.pass_errors import measure_passes
from strop.compiler.passes import Instrument
from strop.compiler.program import Program
from strop.compiler.provenance import write_provenance
from strop.compiler.recipe import Budget, Recipe, load_recipe
from strop.compiler.report.graph import graph_view
from strop.compiler.report.page import REPORT, render
from strop.compiler.stages import Progress, Stages
from strop.compiler.staging import staged
from strop.compiler.stale import verify_types
from strop.compiler.target import get_target

Instruments = Literal["off", "cheap", "full"]
"""How much is measured after every pass: nothing, outputs on one small case, or on all cases."""


def build(
    model: Model,
    out: str | os.PathLike[str],
    recipe: str | Recipe = "cpu-fp32",
    target: str | None = None,
    *,
    force: bool = False,
    dump_ir: str | os.PathLike[str] | None = None,
    instruments: Instruments = "cheap",
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
        dump_ir: a folder for the IR after each pass that changed something, as text and as
            snapshots that ``strop debug diff`` reads.
        instruments: what to measure after every pass.
        choices: measured emitter choices; those shipped for the target by default.
        progress: told the name of each stage as it begins.

    Raises:
        UsageError: the model or the recipe is wrong.
        UnsupportedError: the model cannot be captured or lowered.
        RuntimeRefusedError: the runtime does not take the file.
        BudgetError: the file is too far from the original, or a pass did not rewrite as often as
            the recipe expects; nothing is written.
    """
    recipe = load_recipe(recipe) if isinstance(recipe, str) else recipe
    place = get_target(target or recipe.target)
    recipe = recipe.model_copy(update={"target": place.name})
    require_free(Path(out), force)
    require_folder(Path(dump_ir) if dump_ir is not None else None, "--dump-ir")
    recipe.pipeline()
    stages = Stages(progress)
    measure = model.evaluate
    captured = capture_model(model, place, stages)
    # The original weights are not needed any more; a caller that kept none of its own frees them.
    del model
    recorder = _run_passes(captured, recipe, Path(out), dump_ir, stages)
    _check_passes(captured, recorder, recipe, instruments, stages)
    graph = graph_view(captured.program)
    program = captured.program = recorder.programs[-1] if recorder.programs else captured.program
    recorder.programs.clear()
    graphs = graph, graph_view(program)
    with stages.stage("lower"), _collector_paused():
        lowered = lower_to_onnx(program, place, choices or shipped(place.name))
    with staged(Path(out)) as stage:
        with stages.stage("write"):
            files = write_model(lowered, stage / MODEL)
            write_provenance(lowered, stage / PROVENANCE)
        program.weights.clear()
        del lowered
        gc.collect()
        with stages.stage("check"):
            results = check_file(stage / MODEL, place, captured.cases)
            _hold_to_budget(results, recipe.budget, "the lowering or the runtime")
            run = file_runner(stage / MODEL, place)
            found = evaluate(measure, lambda: run)
            took = quick_look(lambda: run(**captured.cases[0].inputs))
        metrics = {"original": captured.metrics, "artifact": found} if found else {}
        record = Record(
            recipe, program.contract, recorder.records, results, metrics, captured.notes
        )
        described = manifest(record, stage, files)
        write_json(stage / MANIFEST, described)
        milliseconds = {"original": captured.milliseconds, "artifact": took}
        built = build_record(stages.seconds, recorder.records, milliseconds)
        with stages.stage("report"):
            (stage / REPORT).write_text(render(described, built, *graphs), encoding="utf-8")
        # Last of all: the time of the report has joined the others.
        write_json(stage / BUILD, built)
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
    captured = capture_model(model, get_target(recipe.target), Stages())
    if stop_after == "capture":
        return captured.program
    dumps = [Dump(Path(dump_ir), captured.probe.inputs)] if dump_ir else []
    return pipeline.run(captured.program, dumps, stop_after)


def _run_passes(
    captured: Captured,
    recipe: Recipe,
    out: Path,
    dump_ir: str | os.PathLike[str] | None,
    stages: Stages,
) -> Recorder:
    """Run the pipeline; if a pass raises, leave what it takes to see that again."""
    recorder = Recorder(announce=lambda name: stages.progress(f"pass {name}"))
    dumps: list[Instrument] = (
        [Dump(Path(dump_ir), captured.probe.inputs)] if dump_ir is not None else []
    )
    try:
        with stages.stage("passes"), _collector_paused():
            recipe.pipeline().run(captured.program, [recorder, *dumps])
    except Exception as error:
        if recorder.running is not None:
            write_bundle(error, recorder.running, captured.probe.inputs, recipe, out)
        raise
    return recorder


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


def _check_passes(
    captured: Captured, recorder: Recorder, recipe: Recipe, instruments: Instruments, stages: Stages
) -> None:
    """Hold the passes to what the recipe expects, and the program they made to the original.

    Where the optimized program misses the budget, the step after which it does is named.
    """
    _hold_to_expectations(recorder.records, recipe.expect)
    smallest = min(captured.cases, key=lambda c: sum(t.numel() for t in c.inputs.values()))
    # The owner's own data, and the sizes at which shapes degenerate: two runs, not all.
    cases = list({case.name: case for case in (captured.cases[0], smallest)}.values())
    programs = [captured.program, *recorder.programs]
    with stages.stage("check passes"):
        verify_types(programs[-1])
        if _missed(check_program(programs[-1], cases), recipe.budget):
            suspects = ["capture", *(f"pass '{r.name}'" for r in recorder.records)]
            for suspect, program in zip(suspects, programs):
                _hold_to_budget(check_program(program, cases), recipe.budget, suspect)
    if instruments != "off":
        with stages.stage("measure passes"):
            chosen = [captured.probe] if instruments == "cheap" else captured.cases
            measure_passes(captured.program, recorder, chosen)


def _hold_to_expectations(records: Sequence[StepRecord], expected: Mapping[str, int]) -> None:
    """Hold steps and rules to how often they were to rewrite.

    Raises:
        UsageError: no step or rule has that name.
        BudgetError: another count; with the near misses.
    """
    for name, count in expected.items():
        steps = [r for r in records if r.name == name or name in r.rewrites]
        rules = {m.rule for r in records for m in r.misses}
        if not steps and name not in rules:
            known = [*(r.name for r in records), *(n for r in records for n in r.rewrites)]
            raise UsageError(f"expected rewrites of '{name}'{did_you_mean(name, known)}")
        found = sum(
            sum(r.rewrites.values()) if r.name == name else r.rewrites.get(name, 0) for r in steps
        )
        if found != count:
            misses = [m for r in records for m in r.misses if name in (r.name, m.rule)]
            lines = "".join(f"\n  {m.root}: {m.reason}" for m in misses[:5])
            raise BudgetError(
                f"'{name}' was expected to rewrite {count} times and did {found} times. "
                f"Nothing was written. Near misses: {len(misses)}{lines}"
            )


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
