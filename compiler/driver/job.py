"""One build: what was asked for, its clock, and what the user is told of it."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from strop.compiler.artifact.companions import Companions, read_companions
from strop.compiler.artifact.output import require_output
from strop.compiler.driver.optimize import Instruments
from strop.compiler.frontend.coverage import CheckScope
from strop.compiler.frontend.model import Model
from strop.compiler.lower.choices import Choices
from strop.compiler.recipes.loading import load_recipe
from strop.compiler.recipes.recipe import Recipe
from strop.compiler.rewriting.dump import require_dump_place
from strop.compiler.targets.target import Target, get_target
from strop.compiler.util.stages import Stages


@dataclass(frozen=True)
class Options:
    """How to build: those arguments of ``build()`` that do not name what is built."""

    force: bool
    instruments: Instruments
    check: CheckScope
    choices: Choices | None


@dataclass(frozen=True)
class Job:
    """What to build into which folder, and how.

    Attributes:
        out: the folder to write, as an absolute path.
        recipe: the passes and the budget; its paths are absolute, its target is ``target``.
        dump_ir: the folder for the IR after each pass, as an absolute path.
        companions: files and labels that the user adds.
        stages: the clock.
        notes: what the user should know of this run alone, in sentences.
    """

    out: Path
    recipe: Recipe
    target: Target
    dump_ir: Path | None
    companions: Companions
    options: Options
    stages: Stages
    notes: list[str] = field(default_factory=list)


def job_of(
    model: Model,
    out: str | os.PathLike[str],
    recipe: str | Recipe,
    target: str | None,
    dump_ir: str | os.PathLike[str] | None,
    options: Options,
    stages: Stages,
) -> Job:
    """Check what was asked for before anything is compiled.

    Raises:
        UsageError: there is no such recipe or target, a file of the model's is missing, or the
            output cannot be written.
    """
    # The model's code may change the working folder: paths are what they are now.
    here = Path.cwd()
    chosen = (load_recipe(recipe) if isinstance(recipe, str) else recipe).in_folder(here)
    place = get_target(target or chosen.target)
    companions = read_companions(model)
    folder, dumps = here / out, here / dump_ir if dump_ir is not None else None
    require_places(folder, dumps, options.force, chosen.files(), companions.files)
    chosen = chosen.model_copy(update={"target": place.name})
    return Job(folder, chosen, place, dumps, companions, options, stages)


def require_places(
    out: Path,
    dump_ir: Path | None,
    force: bool,
    sources: Sequence[Path],
    more: Collection[str] = (),
) -> None:
    """Check that the output can be written, and may be replaced, before anything is compiled.

    Args:
        out: where the artifact will stand.
        dump_ir: the folder for dumps of the IR.
        force: ``out`` need not be an artifact.
        sources: files and folders that the build reads.
        more: files that the user adds to the artifact.

    Raises:
        UsageError: a sentence about one of the two folders.
    """
    require_output(out, force, more, sources)
    if dump_ir is not None:
        require_dump_place(dump_ir, out)
