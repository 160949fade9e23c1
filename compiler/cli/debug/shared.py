"""What several commands of ``strop debug`` need."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from strop.compiler.cli.consoles import out_console
from strop.compiler.util.terminal import Console

if TYPE_CHECKING:
    from strop.compiler.frontend.prepare import Captured
    from strop.compiler.recipes.recipe import Recipe
    from strop.compiler.rewriting.passes import Pipeline

Source = Annotated[str, typer.Argument(help="FILE.py:make, or hf:PATH[#task].")]


def capture_source(source: str, recipe: Recipe, program: str) -> tuple[Captured, Pipeline]:
    """The captured model, and the passes of a recipe with their contexts.

    Args:
        source: of the model.
        recipe: the passes.
        program: which of several; "" where there is one.
    """
    with Console(file=sys.stderr).status("capturing"):
        from strop.compiler.driver.informed import informed
        from strop.compiler.driver.part import ready_pipeline
        from strop.compiler.frontend.prepare import capture_model
        from strop.compiler.frontend.source import load_model
        from strop.compiler.targets.target import get_target
        from strop.compiler.util.stages import Stages

        model = load_model(source, program)
        pipeline = ready_pipeline(model, recipe)
        captured = capture_model(model, Stages())
        target, example = get_target(recipe.target), captured.cases[0].inputs
        told = informed(pipeline, captured.program, example, target, name=program)
        return captured, told


def capture_only(source: str, program: str) -> Captured:
    """The captured model, whatever data it has for passes."""
    with Console(file=sys.stderr).status("capturing"):
        from strop.compiler.frontend.prepare import capture_model
        from strop.compiler.frontend.source import load_model
        from strop.compiler.util.stages import Stages

        return capture_model(load_model(source, program), Stages())


def dim(text: str) -> None:
    """Print text that is of less interest."""
    out_console.say(text, "dim")
