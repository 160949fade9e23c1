"""``build()``: capture, passes, lowering, writing, the check, in that order."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from strop.compiler.artifact.companions import Companions, read_companions
from strop.compiler.artifact.folder import (
    BUILD,
    MANIFEST,
    PROVENANCE,
    REPORT,
    Artifact,
    read_artifact,
    write_json,
)
from strop.compiler.artifact.manifest import Record, build_record, manifest
from strop.compiler.artifact.output import ARTIFACT, require_output
from strop.compiler.artifact.provenance import write_provenance
from strop.compiler.artifact.report.page import render
from strop.compiler.check.comparison import Comparison, check_session, feeds_of
from strop.compiler.check.limits import hold_to_budget, missed_by
from strop.compiler.check.metrics import require_measure, require_metrics
from strop.compiler.driver.blame import Again, find_suspect
from strop.compiler.driver.metric_blame import hold_metrics
from strop.compiler.driver.optimize import Instruments, Optimized, optimize
from strop.compiler.frontend.cases import Case
from strop.compiler.frontend.coverage import Check
from strop.compiler.frontend.data import context_of
from strop.compiler.frontend.evaluation import evaluate
from strop.compiler.frontend.model import Evaluate, Model
from strop.compiler.frontend.prepare import Captured, capture_model
from strop.compiler.ir.program import Program
from strop.compiler.lower.choices import Choices
from strop.compiler.lower.lowering import lowering_of
from strop.compiler.recipes.loading import load_recipe
from strop.compiler.recipes.recipe import Recipe
from strop.compiler.rewriting.dump import Dump, require_dump_place
from strop.compiler.rewriting.passes import Pipeline
from strop.compiler.targets.isolation import IsolatedSession, open_isolated
from strop.compiler.targets.runtime import runner
from strop.compiler.targets.target import Target, get_target
from strop.compiler.util import interrupts
from strop.compiler.util.collector import collector_paused
from strop.compiler.util.errors import UsageError, did_you_mean
from strop.compiler.util.files.staging import staged
from strop.compiler.util.stages import Progress, Stages
from strop.compiler.util.user_code import held_to_return


def build(
    model: Model,
    out: str | os.PathLike[str],
    recipe: str | Recipe = "cpu-fp32",
    target: str | None = None,
    *,
    force: bool = False,
    dump_ir: str | os.PathLike[str] | None = None,
    instruments: Instruments = "cheap",
    check: Check = "bounded",
    choices: Choices | None = None,
    progress: Progress = lambda stage: None,
    again: Again | None = None,
) -> Artifact:
    """Build a model into an artifact folder, and check the written file against the original.

    Args:
        model: what to build.
        out: the folder to write. The files of an artifact that stands there are replaced;
            whatever else it holds stays.
        recipe: a built-in name, a TOML path, or a ``Recipe``.
        target: overrides the recipe's.
        force: write into ``out`` even if it is not an artifact; what else it holds stays, but
            for files that have the names of the new ones.
        dump_ir: a folder for the IR after each pass that changed something, as text and as
            snapshots that ``strop debug diff`` reads.
        instruments: what to measure after every pass.
        check: at which sizes to compare with the original: as many as cost seconds, or all corners
            of the declared ranges, whatever they cost.
        choices: measured emitter choices; by default those that strop has measured for the target.
        progress: told the name of each stage as it begins.
        again: makes the model once more; called only to find out which step is to blame where the
            file misses the budget. By default the model itself, where the caller still holds it.

    Raises:
        UsageError: the model or the recipe is wrong.
        UnsupportedError: the model cannot be captured or lowered.
        RuntimeRefusedError: the runtime does not take the file.
        BudgetError: the file is too far from the original, in its outputs or in a metric of the
            owner's, or a pass did not rewrite as often as the recipe expects; nothing is written.
    """
    # Not a decorator: it would keep a reference to the model, whose weights are freed on the way.
    with held_to_return():
        # The model's code may change the working folder: paths are what they are now.
        here = Path.cwd()
        out, dump_folder = here / out, here / dump_ir if dump_ir is not None else None
        recipe = (load_recipe(recipe) if isinstance(recipe, str) else recipe).in_folder(here)
        place = get_target(target or recipe.target)
        recipe = recipe.model_copy(update={"target": place.name})
        companions = read_companions(model)
        require_places(out, dump_folder, force, recipe.files(), companions.files)
        said: list[str] = []
        pipeline = ready_pipeline(model, recipe, progress, said.append)
        require_measure(recipe.budget, model.evaluate is not None)
        stages = Stages(progress)
        measure = model.evaluate
        captured = capture_model(model, stages, check)
        require_metrics(recipe.budget, captured.metrics)
        # The original weights are not needed any more; a caller that kept none frees them.
        again = again or weakref.ref(model)
        del model
        dump = Dump(dump_folder, captured.probe.inputs) if dump_folder else None
        taught = pipeline.taught_by(captured.program)
        optimized = optimize(captured, taught, recipe, out, dump, instruments, stages)
        del taught
        with stages.stage("lower"), collector_paused():
            lowered = lowering_of(place).lower(optimized.program, place, choices)
        with staged(out, ARTIFACT, force, interrupts.settle) as folder:
            with stages.stage("write"):
                files = lowered.write(folder)
                write_provenance(lowered.provenance(), folder / PROVENANCE)
                companions.copy_to(folder)
            optimized.program.weights.clear()
            del lowered
            gc.collect()
            with stages.stage("check"), open_isolated(folder, place) as session:
                results = check_session(session, captured.cases)
                _hold(results, captured, recipe, place, again, stages)
                checked = _measure(session, captured.cases[0], measure, results)
                hold_metrics(checked.metrics, captured, recipe, place, again, stages)
            _describe(folder, files, companions, recipe, captured, optimized, checked, stages, said)
        return read_artifact(out)


def ready_pipeline(
    model: Model,
    recipe: Recipe,
    progress: Progress = lambda what: None,
    say: Callable[[str], None] = lambda sentence: None,
) -> Pipeline:
    """The passes of a recipe with what the user gave for them, before it is captured.

    Args:
        model: its data, loss and metrics are what passes see.
        recipe: the passes and the target.
        progress: told what a pass that takes long is at.
        say: told what the user should know of this run alone.

    Raises:
        UsageError: an option is wrong, or a pass needs what the model does not give.
    """
    context = context_of(model, get_target(recipe.target))
    pipeline = recipe.pipeline().within(replace(context, progress=progress, say=say))
    pipeline.require_needs()
    return pipeline


def require_places(
    out: Path,
    dump_ir: Path | None,
    force: bool,
    sources: Sequence[Path],
    more: Collection[str] = (),
) -> None:
    """Check that the output can be written, and may be replaced, before anything is compiled.

    Args:
        out: where the artifact will stand.
        dump_ir: the folder for dumps of the IR.
        force: ``out`` need not be an artifact.
        sources: files and folders that the build reads.
        more: files that the user adds to the artifact.

    Raises:
        UsageError: a sentence about one of the two folders.
    """
    require_output(out, force, more, sources)
    if dump_ir is not None:
        require_dump_place(dump_ir, out)


@dataclass(frozen=True)
class _Checked:
    """What the written file gave.

    Attributes:
        results: every output of every case against the original's.
        metrics: what the user's ``evaluate`` says of it.
        milliseconds: a quick look at one run on the first case.
    """

    results: list[Comparison]
    metrics: dict[str, float]
    milliseconds: float


def _hold(
    results: list[Comparison],
    captured: Captured,
    recipe: Recipe,
    place: Target,
    again: Again,
    stages: Stages,
) -> None:
    """Hold the file to the budget; where it misses, name the step that is to blame."""
    missed = missed_by(results, recipe.budget)
    if not missed:
        return
    worst = max(missed, key=lambda r: r.max_error)
    case = next(c for c in captured.cases if c.name == worst.case)
    with stages.stage("look for the step to blame"):
        suspect = find_suspect(again, recipe, place, case)
    hold_to_budget(results, recipe.budget, suspect)


def _measure(
    session: IsolatedSession, case: Case, measure: Evaluate | None, results: list[Comparison]
) -> _Checked:
    found = evaluate(measure, lambda: runner(session), "the artifact")
    took = session.milliseconds(feeds_of(case), f"case '{case.name}'", case.seconds)
    return _Checked(results, found, took)


def _describe(
    folder: Path,
    files: list[str],
    companions: Companions,
    recipe: Recipe,
    captured: Captured,
    optimized: Optimized,
    checked: _Checked,
    stages: Stages,
    said: list[str],
) -> None:
    """Write manifest, report and build record beside the model."""
    both = {"original": captured.metrics, "artifact": checked.metrics}
    record = Record(
        recipe=recipe,
        contract=optimized.program.contract,
        steps=optimized.records,
        checks=checked.results,
        sizes=captured.coverage.record(),
        metrics=both if checked.metrics else {},
        notes=[*captured.notes, *(note for step in optimized.records for note in step.notes)],
        assets=tuple(companions.files),
        labels=companions.labels,
    )
    described = manifest(record, folder, files)
    write_json(folder / MANIFEST, described)
    times = {"original": captured.milliseconds, "artifact": checked.milliseconds}
    built = build_record(stages.seconds, optimized.records, times, said)
    with stages.stage("report"):
        page = render(described, built, *optimized.graphs)
        (folder / REPORT).write_text(page, encoding="utf-8")
    # Last of all: the time of the report has joined the others.
    write_json(folder / BUILD, built)


@held_to_return()
def compile_program(
    model: Model,
    recipe: Recipe,
    stop_after: str,
    dump_ir: Path | None = None,
) -> Program:
    """Capture and run the passes, up to and including one, for ``--stop-after``.

    Raises:
        UsageError: the recipe has no such pass; "capture" runs none.
    """
    pipeline = ready_pipeline(model, recipe)
    names = ["capture", *(s.name for s in pipeline.steps)]
    if stop_after not in names:
        raise UsageError(f"--stop-after: no pass '{stop_after}'{did_you_mean(stop_after, names)}")
    if dump_ir is not None:
        require_dump_place(dump_ir)
    captured = capture_model(model, Stages())
    dump = Dump(dump_ir, captured.probe.inputs) if dump_ir else None
    if stop_after == "capture":
        if dump:
            dump.start(captured.program)
        return captured.program
    pipeline = pipeline.taught_by(captured.program)
    return pipeline.run(captured.program, [dump] if dump else [], stop_after)
