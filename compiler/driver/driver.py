"""``build()``: capture, passes, lowering, writing, the check, in that order."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from weakref import ref

from strop.compiler.artifact.folder import Artifact, read_artifact
from strop.compiler.driver.informed import informed
from strop.compiler.driver.job import Options, job_of
from strop.compiler.driver.optimize import Instruments
from strop.compiler.driver.part import captured_parts, ready_pipeline
from strop.compiler.driver.publish import publish
from strop.compiler.frontend.coverage import CheckScope
from strop.compiler.frontend.crossing import require_agreement
from strop.compiler.frontend.model import Model
from strop.compiler.frontend.prepare import capture_model
from strop.compiler.frontend.programs import Programs, as_programs, is_several
from strop.compiler.frontend.sharing import shared_tensors
from strop.compiler.frontend.texts import make_texts
from strop.compiler.ir.program import Program
from strop.compiler.lower.choices import Choices
from strop.compiler.recipes.recipe import Recipe
from strop.compiler.rewriting.dump import Dump, require_dump_place
from strop.compiler.targets.target import get_target
from strop.compiler.util.errors import UsageError, did_you_mean
from strop.compiler.util.stages import Progress, Stages
from strop.compiler.util.user_code import held_to_return


def build(
    model: Model | Programs,
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
    again: Callable[[], Model | Programs | None] | None = None,
) -> Artifact:
    """Build a model into an artifact folder, and check the written file against the original.

    Several programs go through the same passes one by one, and are written together or not at all.

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
        again: makes what is built once more; called only to find out which step is to blame where
            a file misses the budget. By default the model itself, where the caller still holds it.

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
        programs = as_programs(model)
        job = job_of(programs, out, recipe, target, dump_ir, options, Stages(progress))
        require_agreement(programs)
        shared = shared_tensors(programs.models)
        remade = {name: partial(_once_more, again or ref(model), name) for name in programs.models}
        models = dict(programs.models)
        # Where nothing is generated, the original weights are not needed any more once they are
        # captured; a caller that kept none frees them.
        generating = programs if programs.generation is not None else None
        del model, programs
        parts = captured_parts(job, models, remade)
        with job.stages.stage("reference"):
            texts = make_texts(generating, check) if generating is not None else None
        del generating
        publish(job, [part.optimized() for part in parts], shared, texts)
        return read_artifact(job.out)


def _once_more(again: Callable[[], Model | Programs | None], program: str) -> Model | None:
    """One of the models of a build, made once more."""
    made = again()
    return None if made is None else as_programs(made).models.get(program)


def compile_programs(
    given: Model | Programs, recipe: Recipe, stop_after: str, dump_ir: Path | None = None
) -> dict[str, Program]:
    """``compile_program`` for each program; each dumps into a folder of its own."""
    models = as_programs(given).models
    if not is_several(models):
        return {name: compile_program(m, recipe, stop_after, dump_ir) for name, m in models.items()}
    return {
        name: compile_program(model, recipe, stop_after, dump_ir and dump_ir / name, name)
        for name, model in models.items()
    }


@held_to_return()
def compile_program(
    model: Model,
    recipe: Recipe,
    stop_after: str,
    dump_ir: Path | None = None,
    name: str = "",
) -> Program:
    """Capture and run the passes, up to and including one, for ``--stop-after``.

    Args:
        model: what to compile.
        recipe: the passes and the target.
        stop_after: the last step to run.
        dump_ir: a folder for the IR after each pass.
        name: of the program, where the source makes several.

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
    example = captured.cases[0].inputs
    pipeline = informed(pipeline, captured.program, example, target, name=name)
    return pipeline.run(captured.program, [dump] if dump else [], stop_after)
