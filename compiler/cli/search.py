"""``strop search``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strop.compiler.cli import options
from strop.compiler.cli.consoles import out_console
from strop.compiler.cli.debug.shared import Source
from strop.compiler.util.interrupts import Interrupted
from strop.compiler.util.terminal import Console, Table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from strop.compiler.recipes.recipe import Recipe
    from strop.compiler.search.place import Place
    from strop.compiler.search.space import Space
    from strop.compiler.search.study import Study


def search(
    source: Source,
    space: Annotated[Path, typer.Option(help="A TOML file: which options, and which values.")],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Folder for the study, the report and the recipes.")
    ],
    recipe: options.RecipeName = "cpu-int8",
    trials: Annotated[int, typer.Option(min=1, help="How many builds to make.")] = 20,
    storage: Annotated[
        str, typer.Option(help="A database for many workers, as an URL; by default OUT/study.db.")
    ] = "",
    name: Annotated[str, typer.Option("--study", help="The name of the study.")] = "search",
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    settings: options.Settings = [],  # noqa: B006  (typer copies it)
    passes: options.Passes = [],  # noqa: B006
    before: options.Before = "",
    after: options.After = "",
) -> None:
    """Search over options of passes for what no other choice beats; or go on with a search."""
    from strop.compiler.recipes.loading import asked_recipe
    from strop.compiler.search.place import Place
    from strop.compiler.search.search import Search
    from strop.compiler.search.space import read_space
    from strop.compiler.search.study import Study
    from strop.compiler.util.sources import in_folder

    # The user's code may change the working folder: paths are what they are now.
    here = Path.cwd()
    chosen = asked_recipe(recipe, settings, passes, before, after).in_folder(here)
    found = read_space(space, chosen)
    place = Place(here / out)
    place.prepare(name)
    study = Study(storage or place.storage, name, chosen, found, seed)
    base: Mapping[str, float] = {}
    with Console(file=sys.stderr).status("building the recipe as it is") as status:
        job = Search(in_folder(source, here), chosen, found, status.update, out_console.say)
        try:
            base = job.run(study, trials)
        except Interrupted as end:
            end.add_note(f"The study is kept in {place.folder}: the same command goes on with it.")
            raise
        finally:
            _write(place, chosen, found, study, base)
    _print_front(found, study, place)


def _write(
    place: Place, recipe: Recipe, space: Space, study: Study, base: Mapping[str, float]
) -> None:
    """The report, also of a search that was interrupted; not of one that has tried nothing."""
    from strop.compiler.search.page import render

    if tried := study.tried():
        place.write(render(recipe.name, space.directions, base, tried), recipe, tried)


def _print_front(space: Space, study: Study, place: Place) -> None:
    """The trials that no other beats."""
    from strop.compiler.search.page import shown, values_text

    table = Table("trial", *space.directions, "options", title="Pareto front")
    for one in study.tried():
        if one.best:
            measured = [shown(name, one.measured[name]) for name in space.directions]
            table.add_row(str(one.number), *measured, values_text(one.values))
    out_console.print(table)
    out_console.say(f"{place.folder / 'report.html'}; recipes: best-NUMBER.toml beside it")
