"""``strop debug why-not``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strop.compiler.cli import options
from strop.compiler.cli.consoles import out_console
from strop.compiler.cli.debug.shared import capture_source
from strop.compiler.util.terminal import Table

if TYPE_CHECKING:
    from strop.compiler.debug.why_not import Answer


def why_not(
    name: Annotated[str, typer.Argument(metavar="PASS", help="A pass of the recipe.")],
    source: Annotated[
        str, typer.Argument(help="FILE.py:make or hf:PATH, to run it; or an artifact, to read it.")
    ],
    at: Annotated[str, typer.Option(help="FILE.py:LINE; all rules at that line.")] = "",
    recipe: options.RecipeName = "cpu-fp32",
    passes: options.Passes = [],  # noqa: B006
    before: options.Before = "",
    after: options.After = "",
    settings: options.Settings = [],  # noqa: B006
    program: options.Program = "",
) -> None:
    """Say why a pass left something as it is: which condition failed, where."""
    from strop.compiler.debug.why_not import why_not as ask
    from strop.compiler.debug.why_not import why_not_in
    from strop.compiler.recipes.loading import asked_recipe

    if Path(source).is_dir():
        from strop.compiler.artifact.folder import read_artifact

        artifact = read_artifact(Path(source))
        _print_answer(why_not_in(artifact, name, at or None, program), name, at)
        return
    chosen = asked_recipe(recipe, settings, passes, before, after)
    captured, pipeline = capture_source(source, chosen, program)
    _print_answer(ask(captured.program, pipeline, name, at or None), name, at)


def _print_answer(answer: Answer, name: str, at: str) -> None:
    where = f" at {at}" if at else ""
    for step, rewrite in answer.earlier:
        out_console.say(f"pass '{step}' rewrote %{rewrite.node} here before ({rewrite.rule})")
    for text in answer.present:
        out_console.say(f"'{name}' saw {text}")
    for rule in sorted({r.rule for r in answer.rewrites}):
        count = sum(r.rule == rule for r in answer.rewrites)
        out_console.say(f"'{rule}' rewrote {count}{where}")
    if answer.misses:
        table = Table("rule", "left as it is", "because")
        for miss in answer.misses:
            table.add_row(miss.rule, miss.root, miss.reason)
        out_console.print(table)
    for note in answer.notes:
        out_console.say(f"note: {note}")
    if not answer.misses and not answer.rewrites and not answer.notes:
        looks = "; its rules look for:" if answer.looked_for else ""
        out_console.say(f"'{name}' found nothing to rewrite{where}{looks}")
        for rule, targets in answer.looked_for.items():
            out_console.say(f"  {rule}: {targets}")
