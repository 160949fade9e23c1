"""One program of a build, on its way from the user's model to its file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from strop.compiler.check.metrics import require_measure, require_metrics
from strop.compiler.driver.blame import Again
from strop.compiler.driver.informed import informed
from strop.compiler.driver.job import Job
from strop.compiler.driver.optimize import Optimized, optimize
from strop.compiler.frontend.called import require_called
from strop.compiler.frontend.data import context_of
from strop.compiler.frontend.model import Evaluate, Model
from strop.compiler.frontend.prepare import Captured, capture_model
from strop.compiler.frontend.programs import is_several
from strop.compiler.recipes.recipe import Recipe
from strop.compiler.rewriting.dump import Dump
from strop.compiler.rewriting.passes import Pipeline
from strop.compiler.targets.target import MAIN, get_target
from strop.compiler.util.stages import Progress


@dataclass
class Part:
    """A program as captured.

    Attributes:
        name: of its file.
        job: what was asked for; its budget names only metrics that this program has.
        pipeline: the passes, with what the user gave for them.
        captured: what the original module left behind.
        measure: the user's ``evaluate``.
        again: makes the model once more.
    """

    name: str
    job: Job
    pipeline: Pipeline
    captured: Captured
    measure: Evaluate | None
    again: Again

    def optimized(self) -> Ready:
        """Run the passes; the programs on the way are freed when this returns."""
        job, captured = self.job, self.captured
        with job.named():
            dump = Dump(job.dump_ir, captured.probe.inputs) if job.dump_ir else None
            example, choices = captured.cases[0].inputs, job.options.choices
            program = captured.program
            told = informed(self.pipeline, program, example, job.target, choices, job.program)
            made = optimize(
                captured, told, job.recipe, job.out, dump, job.options.instruments, job.stages
            )
        return Ready(self.name, job, captured, made, self.measure, self.again)


@dataclass(frozen=True)
class Ready:
    """A program after all passes; see ``Part``.

    Attributes:
        captured: the cases and the metrics of the original, and the program that is lowered.
        optimized: what the passes made.
    """

    name: str
    job: Job
    captured: Captured
    optimized: Optimized
    measure: Evaluate | None
    again: Again


def captured_parts(job: Job, models: dict[str, Model], again: Mapping[str, Again]) -> list[Part]:
    """Capture every model, and let go of it: ``models`` is empty afterwards.

    All that can be known to be wrong before a model runs is looked at first, of all of them.

    Raises:
        UsageError: a model, its data or the recipe is wrong.
        UnsupportedError: a model cannot be captured.
    """
    jobs = {name: job.of(name) for name in models} if is_several(models) else {MAIN: job}
    pipelines = {}
    for name, model in models.items():
        with jobs[name].named():
            progress, say = jobs[name].stages.progress, jobs[name].say
            pipelines[name] = ready_pipeline(model, job.recipe, progress, say)
    budget = job.recipe.budget
    require_measure(budget, any(model.evaluate is not None for model in models.values()))
    parts = []
    for name, its in jobs.items():
        model = models.pop(name)
        with its.named():
            captured = capture_model(model, its.stages, job.options.check)
        parts.append(Part(name, its, pipelines[name], captured, model.evaluate, again[name]))
    require_called(job.generation, {p.name: p.captured.program.contract for p in parts})
    require_metrics(budget, {n: v for part in parts for n, v in part.captured.metrics.items()})
    for part in parts:
        part.job = _within_metrics(part.job, part.captured.metrics)
    return parts


def _within_metrics(job: Job, measured: Mapping[str, float]) -> Job:
    """The same with a budget for those metrics alone that a program has."""
    budget = job.recipe.budget
    metrics = {name: limits for name, limits in budget.metrics.items() if name in measured}
    kept = budget.model_copy(update={"metrics": metrics})
    return replace(job, recipe=job.recipe.model_copy(update={"budget": kept}))


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
