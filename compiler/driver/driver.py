"""``build()``: capture, passes, lowering, writing, the check, in that order."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from strop.compiler.artifact.folder import PROVENANCE, Artifact, read_artifact
from strop.compiler.artifact.output import ARTIFACT
from strop.compiler.artifact.provenance import write_provenance
from strop.compiler.check.metrics import require_measure, require_metrics
from strop.compiler.driver.blame import Again
from strop.compiler.driver.describe import describe
from strop.compiler.driver.informed import informed
from strop.compiler.driver.job import Job, Options, job_of
from strop.compiler.driver.optimize import Instruments, Optimized, optimize
from strop.compiler.driver.speed import written
from strop.compiler.driver.stand_in import check_by_stand_in
from strop.compiler.driver.verdict import check_file
from strop.compiler.frontend.coverage import CheckScope
from strop.compiler.frontend.data import context_of
from strop.compiler.frontend.model import Evaluate, Model
from strop.compiler.frontend.prepare import Captured, capture_model
from strop.compiler.ir.program import Program
from strop.compiler.lower.choices import Choices
from strop.compiler.lower.lowering import lowering_of
from strop.compiler.recipes.recipe import Recipe
from strop.compiler.rewriting.dump import Dump, require_dump_place
from strop.compiler.rewriting.passes import Pipeline
from strop.compiler.targets.runtime import runtime_of
from strop.compiler.targets.target import get_target
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
    check: CheckScope = "bounded",
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
        options = Options(force, instruments, check, choices)
        job = job_of(model, out, recipe, target, dump_ir, options, Stages(progress))
        pipeline = ready_pipeline(model, job.recipe, progress, job.notes.append)
        require_measure(job.recipe.budget, model.evaluate is not None)
        measure = model.evaluate
        captured = capture_model(model, job.stages, check)
        require_metrics(job.recipe.budget, captured.metrics)
        # The original weights are not needed any more; a caller that kept none frees them.
        again = again or weakref.ref(model)
        del model
        optimized = _optimized(job, captured, pipeline)
        del pipeline
        _publish(job, captured, optimized, measure, again)
        return read_artifact(job.out)


def _optimized(job: Job, captured: Captured, pipeline: Pipeline) -> Optimized:
    """Run the passes; the programs on the way are freed when this returns."""
    dump = Dump(job.dump_ir, captured.probe.inputs) if job.dump_ir else None
    inputs, options = captured.cases[0].inputs, job.options
    told = informed(pipeline, captured.program, inputs, job.target, options.choices)
    return optimize(captured, told, job.recipe, job.out, dump, options.instruments, job.stages)


def _publish(
    job: Job, captured: Captured, optimized: Optimized, measure: Evaluate | None, again: Again
) -> None:
    """Lower, write, check and describe; the folder takes its place in one step, or not at all."""
    with job.stages.stage("lower"), collector_paused():
        lowering = lowering_of(job.target)
        lowered = lowering.lower(optimized.program, job.target, job.options.choices)
    stand_in = runtime_of(job.target).stand_in(job.target)
    with (
        # Times of a stand-in would say nothing of the target.
        written(optimized.in_float if stand_in is None else None, job) as in_float,
        staged(job.out, ARTIFACT, job.options.force, interrupts.settle) as folder,
    ):
        with job.stages.stage("write"):
            files = lowered.write(folder)
            write_provenance(lowered.provenance(), folder / PROVENANCE)
            job.companions.copy_to(folder)
        del lowered
        if stand_in is None:
            # The weights are in the file: the check has the memory for itself.
            optimized.program.weights.clear()
            gc.collect()
            checked = check_file(folder, in_float, job, captured, measure, again)
        else:
            checked = check_by_stand_in(stand_in, folder, job, captured, measure, again)
        describe(folder, files, job, captured, optimized, checked)


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
    target = get_target(recipe.target)
    pipeline = informed(pipeline, captured.program, captured.cases[0].inputs, target)
    return pipeline.run(captured.program, [dump] if dump else [], stop_after)
