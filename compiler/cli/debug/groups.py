"""``strop debug groups``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from strop.compiler.cli import options
from strop.compiler.cli.consoles import out_console
from strop.compiler.cli.debug.shared import capture_only, dim

if TYPE_CHECKING:
    from strop.compiler.ir.program import Program
    from strop.compiler.rewriting.passes import Pipeline


def groups(
    source: Annotated[str, typer.Argument(help="FILE.py:make or hf:PATH.")],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[GROUP]...", help="Names or patterns.")
    ] = None,
    recipe: options.RecipeName = "cpu-pruned-fp32",
    settings: options.Settings = [],  # noqa: B006
    program: options.Program = "",
) -> None:
    """List what can be pruned and what is frozen; with a name, every slice that goes together."""
    from strop.compiler.recipes.loading import asked_recipe
    from strop.passes.prune.dependency import dependencies
    from strop.passes.prune.groups import groups as groups_of
    from strop.passes.prune.selection import matching

    pipeline = asked_recipe(recipe, settings).pipeline()
    captured = capture_only(source, program).program
    every = groups_of(dependencies(_before_pruning(captured, pipeline, recipe)))
    if names:
        for group in matching(every, names):
            out_console.say(str(group))
        return
    for group in every:
        what = f"{group.name}: {group.size} positions"
        if group.frozen:
            dim(f"{what}, frozen: {group.frozen[0]}")
        else:
            out_console.say(f"{what}, on {len(group.slices)} axes of weights")


def _before_pruning(program: Program, pipeline: Pipeline, recipe: str) -> Program:
    """The program as the first pruning of a recipe sees it.

    Raises:
        UsageError: the recipe prunes nothing.
    """
    from strop.compiler.rewriting.passes import run_step
    from strop.compiler.util.errors import UsageError

    for step in pipeline.steps:
        if step.run.name == "prune":
            return program
        program = run_step(step, program).program
    raise UsageError(f"recipe '{recipe}' has no pass 'prune'; take cpu-pruned-fp32")
