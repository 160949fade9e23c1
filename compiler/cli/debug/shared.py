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


def capture_source(source: str, recipe: Recipe) -> tuple[Captured, Pipeline]:
    """The captured model, and the passes of a recipe with their contexts."""
    with Console(file=sys.stderr).status("capturing"):
        from strop.compiler.driver.driver import ready_pipeline
        from strop.compiler.driver.informed import informed
        from strop.compiler.frontend.prepare import capture_model
        from strop.compiler.frontend.source import load_model
        from strop.compiler.targets.target import get_target
        from strop.compiler.util.stages import Stages

        model = load_model(source)
        pipeline = ready_pipeline(model, recipe)
        captured = capture_model(model, Stages())
        target = get_target(recipe.target)
        return captured, informed(pipeline, captured.program, captured.cases[0].inputs, target)


def capture_only(source: str) -> Captured:
    """The captured model, whatever data it has for passes."""
    with Console(file=sys.stderr).status("capturing"):
        from strop.compiler.frontend.prepare import capture_model
        from strop.compiler.frontend.source import load_model
        from strop.compiler.util.stages import Stages

        return capture_model(load_model(source), Stages())


def dim(text: str) -> None:
    """Print text that is of less interest."""
    out_console.say(text, "dim")
