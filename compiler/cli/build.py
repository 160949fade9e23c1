"""``strop build``."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strop.compiler.cli import options
from strop.compiler.cli.consoles import say_problem
from strop.compiler.cli.summary import print_summary
from strop.compiler.util.errors import UsageError
from strop.compiler.util.ranks import rank
from strop.compiler.util.sources import in_folder, source_path
from strop.compiler.util.terminal import Console, write

if TYPE_CHECKING:
    from strop.compiler.lower.choices import Choices
    from strop.compiler.recipes.recipe import Recipe
    from strop.compiler.util.stages import Progress


def build(
    source: Annotated[
        str,
        typer.Argument(
            help="FILE.py:make, or hf:PATH[#task[,option=value...]]; strop tasks lists both."
        ),
    ] = "",
    out: options.Out = None,
    recipe: options.RecipeName = "cpu-fp32",
    target: options.Target = "",
    settings: options.Settings = [],  # noqa: B006  (typer copies it)
    passes: options.Passes = [],  # noqa: B006
    before: options.Before = "",
    after: options.After = "",
    stop_after: options.StopAfter = "",
    dump_ir: options.DumpIr = None,
    expect: options.Expect = [],  # noqa: B006
    instruments: options.Instruments = "cheap",
    check: options.Check = "bounded",
    print_recipe: options.PrintRecipe = False,
    force: options.Force = False,
    tune: options.Tune = False,
) -> None:
    """Build a model into a checked artifact."""
    # The user's code may change the working folder: paths are what they are now.
    here = Path.cwd()
    from strop.compiler.recipes.loading import asked_recipe

    settings = [*settings, *(f"expect.{count}" for count in expect)]
    chosen = asked_recipe(recipe, settings, passes, before, after, target)
    if print_recipe:
        from strop.compiler.recipes.text import recipe_text

        write(recipe_text(chosen))
        return
    if not source:
        raise UsageError("say what to build: FILE.py:make or hf:PATH")
    source, chosen = in_folder(source, here), chosen.in_folder(here)
    dumps = dump_ir and here / dump_ir
    if stop_after:
        _print_program(source, chosen, stop_after, dumps)
    elif out is None:
        raise UsageError("say where to write: -o OUT")
    elif rank() > 0:
        _take_part(source, chosen)
    else:
        _write(_Order(source, here / out, chosen, dumps, force, tune, instruments, check))


@dataclass(frozen=True)
class _Order:
    """What to build, where to, and how; paths are absolute."""

    source: str
    out: Path
    recipe: Recipe
    dump_ir: Path | None
    force: bool
    tune: bool
    instruments: options.Instruments
    check: options.Check


def _print_program(source: str, recipe: Recipe, stop_after: str, dump_ir: Path | None) -> None:
    from strop.compiler.driver.driver import compile_programs
    from strop.compiler.frontend.source import load_source

    found = compile_programs(load_source(source), recipe, stop_after, dump_ir)
    for name, program in found.items():
        write(f"program {name}:\n{program}" if len(found) > 1 else str(program))


def _take_part(source: str, recipe: Recipe) -> None:
    """Run the passes, as one of several processes that train together; the first one writes."""
    from strop.compiler.driver.driver import compile_programs
    from strop.compiler.frontend.source import load_source

    last = recipe.pipeline().steps[-1].name
    compile_programs(load_source(source), recipe, last)


def _write(order: _Order) -> None:
    """Build the artifact, and say what is in it."""
    source, recipe = order.source, order.recipe
    # Bound to the stream itself, so that it goes on while others' output is held back.
    with Console(file=sys.stderr).status(f"loading {source}") as status:
        from strop.compiler.driver import driver
        from strop.compiler.driver.job import require_places
        from strop.compiler.frontend.source import load_source

        reads = [source_path(source), *recipe.files()]
        require_places(order.out, order.dump_ir, order.force, reads)
        choices = _tuned(recipe, status.update) if order.tune else None
        artifact = driver.build(
            load_source(source),
            order.out,
            recipe,
            force=order.force,
            dump_ir=order.dump_ir,
            instruments=order.instruments,
            check=order.check,
            choices=choices,
            progress=lambda stage: status.update(stage),
            again=lambda: load_source(source),
        )
    _remember(artifact.path, source)
    print_summary(artifact)


def _tuned(recipe: Recipe, progress: Progress) -> Choices:
    """The fastest of several ways to lower an operator, measured on this machine."""
    from strop.compiler.lower.lowering import lowering_of
    from strop.compiler.targets.target import get_target

    target = get_target(recipe.target)
    return lowering_of(target).tuned(target, lambda what: progress(f"measuring {what}"))


def _remember(out: Path, source: str) -> None:
    """Keep the source for `strop bench`; without it, --source says it there."""
    from strop.compiler.artifact.history import remember_source

    try:
        remember_source(out, source)
    except (OSError, RuntimeError, UsageError) as error:
        say_problem(f"the source is not remembered for strop bench: {error}")
