"""One build: what was asked for, its clock, and what the user is told of it."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from strop.compiler.artifact.companions import Companions, read_companions
from strop.compiler.artifact.folder import own_names
from strop.compiler.artifact.generation import generation_values
from strop.compiler.artifact.output import require_output
from strop.compiler.driver.optimize import Instruments
from strop.compiler.frontend.coverage import CheckScope
from strop.compiler.frontend.generation import Generation
from strop.compiler.frontend.programs import Programs, is_several
from strop.compiler.lower.choices import Choices
from strop.compiler.recipes.loading import load_recipe
from strop.compiler.recipes.recipe import Recipe
from strop.compiler.rewriting.dump import require_dump_place
from strop.compiler.targets.target import Target, get_target
from strop.compiler.util.errors import StropError, UnsupportedError
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
        several: whether the artifact will hold several programs.
        generation: how they are called token by token.
        told: what the user says of all programs together, in sentences.
        program: the one that is worked on, where there are several; else "".
        notes: what the user should know of this run alone, in sentences.
    """

    out: Path
    recipe: Recipe
    target: Target
    dump_ir: Path | None
    companions: Companions
    options: Options
    stages: Stages
    several: bool
    generation: Generation | None
    told: Sequence[str]
    program: str = ""
    notes: list[str] = field(default_factory=list)

    def of(self, program: str) -> Job:
        """The same for one of several programs; it shares the clock and the notes."""
        stages = Stages(lambda what: self.stages.progress(f"{program}: {what}"))
        stages.seconds = self.stages.seconds
        dumps = self.dump_ir and self.dump_ir / program
        return replace(self, stages=stages, program=program, dump_ir=dumps)

    def say(self, sentence: str) -> None:
        """Note what the user should know of this run."""
        self.notes.append(f"{self.program}: {sentence}" if self.program else sentence)

    @contextmanager
    def named(self) -> Iterator[None]:
        """What goes wrong in the block is told with the name of the program."""
        try:
            yield
        except StropError as error:
            if self.program:
                error.args = (f"program '{self.program}': {error}",)
            raise


def job_of(
    programs: Programs,
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
        UnsupportedError: there are several programs, and the target takes one.
    """
    # The model's code may change the working folder: paths are what they are now.
    here = Path.cwd()
    chosen = (load_recipe(recipe) if isinstance(recipe, str) else recipe).in_folder(here)
    place = get_target(target or chosen.target)
    _require_together(programs, place)
    companions = read_companions(programs)
    folder, dumps = here / out, here / dump_ir if dump_ir is not None else None
    written = own_names(programs.models).union(companions.files)
    require_places(folder, dumps, options.force, chosen.files(), written)
    chosen = chosen.model_copy(update={"target": place.name})
    return Job(
        folder, chosen, place, dumps, companions, options, stages,
        is_several(programs.models), programs.generation, programs.notes,
    )  # fmt: skip


def _require_together(programs: Programs, target: Target) -> None:
    """Check that a target takes so many programs, and that it is said rightly how they generate."""
    if programs.generation is not None:
        generation_values(programs.generation)
    if is_several(programs.models) and not target.several_programs:
        raise UnsupportedError(
            f"{target.name} takes one program at a time, and there are named ones: "
            f"{', '.join(programs.models)}. Build each by itself, from a factory that returns its "
            "Model"
        )


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
        more: files that will be written, beside those of every artifact.

    Raises:
        UsageError: a sentence about one of the two folders.
    """
    require_output(out, force, more, sources)
    if dump_ir is not None:
        require_dump_place(dump_ir, out)
