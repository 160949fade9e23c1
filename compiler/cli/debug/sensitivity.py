"""``strop debug sensitivity``."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from strop.compiler.cli import options
from strop.compiler.cli.consoles import out_console
from strop.compiler.cli.debug.shared import Source, capture_source
from strop.compiler.util.terminal import Console

if TYPE_CHECKING:
    from strop.compiler.ir.program import Program
    from strop.compiler.rewriting.passes import Pass, Pipeline, Step


def sensitivity(
    source: Source,
    recipe: options.RecipeName = "cpu-int8",
    step: Annotated[str, typer.Option(help="The step that quantizes, by its id.")] = "",
    method: Annotated[
        Literal["output", "gradient"],
        typer.Option(help="Run the program with each layer quantized, or estimate its cost."),
    ] = "output",
    distance: Annotated[
        Literal["cosine", "kl"], typer.Option(help="What a layer costs: 1 - cosine, or KL.")
    ] = "cosine",
    weigh: Annotated[
        Literal["latency", "multiply-adds"], typer.Option(help="What a layer saves.")
    ] = "latency",
    batches: Annotated[int, typer.Option(min=1, help="Calibration batches to look at.")] = 8,
    settings: options.Settings = [],  # noqa: B006  (typer copies it)
    passes: options.Passes = [],  # noqa: B006
    before: options.Before = "",
    after: options.After = "",
    program: options.Program = "",
) -> None:
    """Show what it costs and saves to quantize each layer, those first that are worth keeping."""
    from strop.compiler.recipes.loading import asked_recipe
    from strop.passes.quantize.control.control import measured_ladder
    from strop.passes.quantize.control.ladder import ladder_text
    from strop.passes.quantize.control.scheme import Scheme
    from strop.passes.quantize.control.sensitivity import Sweep

    chosen = asked_recipe(recipe, settings, passes, before, after)
    captured, pipeline = capture_source(source, chosen, program)
    before_it, found, quantizer = _at(captured.program, pipeline, step)
    with Console(file=sys.stderr).status("learning") as status:
        context = replace(found.context, progress=status.update)
        scheme = Scheme.of(quantizer, before_it, context)
        sweep = Sweep(method, distance, batches)
        rungs, weighed = measured_ladder(before_it, scheme, sweep, weigh, context)
    out_console.say(ladder_text(rungs, weighed))


def _at(program: Program, pipeline: Pipeline, name: str) -> tuple[Program, Step, Pass]:
    """The program as it comes to a step that quantizes, that step, and the pass that does it.

    Raises:
        UsageError: there is none, or it lacks calibration data.
    """
    from strop.compiler.rewriting.passes import run_step
    from strop.compiler.util.errors import UsageError, did_you_mean
    from strop.passes.quantize.control.control import AccuracyControl
    from strop.passes.quantize.control.scheme import takes_layers

    for step in pipeline.steps:
        held = step.run.quantizer() if isinstance(step.run, AccuracyControl) else step.run
        if takes_layers(type(held)) and name in ("", step.name):
            if step.context.lacks(("calibration", "train")):
                raise UsageError("layers are compared on data: give Model(calibration=...)")
            return program, step, held
        program = run_step(step, program).program
    known = [step.name for step in pipeline.steps]
    if name and name not in known:
        raise UsageError(f"--step: no pass '{name}'{did_you_mean(name, known)}")
    raise UsageError("no step quantizes layers that can be named; take --recipe cpu-int8")
