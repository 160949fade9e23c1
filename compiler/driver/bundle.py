"""A crash bundle: all that is needed to reproduce the failure of a pass, without large weights.

``program.json`` is the IR before the pass (``program.txt`` for people), ``pass.toml`` the pass
with its options, ``recipe.toml`` where it stood, ``inputs.safetensors`` one small set of its
owner's inputs, ``crash.json`` the error, versions, the seed and the names of all files. A bundle
names no code to run: a pass of the user's own, and code that options of a pass name, are given
again when it is replayed. Large float
weights are left out, and seeded noise stands in for them, unless the crash needs them.
"""

from __future__ import annotations

import platform
import traceback
from collections.abc import Collection
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path, PurePath
from typing import Any, Literal

import pydantic
import torch

from strop.compiler.artifact.folder import write_json
from strop.compiler.ir.program import Program
from strop.compiler.ir.running import Inputs
from strop.compiler.ir.snapshots.reader import load_program
from strop.compiler.ir.snapshots.weight_store import WeightStore
from strop.compiler.ir.snapshots.writer import INPUTS, WEIGHTS, save_inputs, save_program
from strop.compiler.recipes.entry import PassEntry
from strop.compiler.recipes.loading import parse_recipe
from strop.compiler.recipes.recipe import Recipe
from strop.compiler.recipes.registry import make_pass, origin, pass_classes
from strop.compiler.recipes.syntax import parse_pass
from strop.compiler.recipes.text import recipe_text
from strop.compiler.rewriting.context import Context
from strop.compiler.rewriting.passes import Pass, Step, is_strops
from strop.compiler.util.errors import StropError, UsageError
from strop.compiler.util.files.holdings import Kind
from strop.compiler.util.files.parsing import Strict, validated
from strop.compiler.util.files.reading import MOST_TOML, is_there, read_json, read_text
from strop.compiler.util.files.staging import require_place, staged
from strop.compiler.util.sources import without_folder

CRASH, PROGRAM, PASS, RECIPE = "crash.json", "program.json", "pass.toml", "recipe.toml"
PROGRAM_TEXT = "program.txt"
FORMAT = 1
PACKAGES = ("strop", "torch", "onnxscript", "numpy")
SEED = 0
# What a bundle is written as, but for its weights.
NAMES = (CRASH, PROGRAM, PROGRAM_TEXT, PASS, RECIPE, INPUTS)
# A float weight with more elements is replaced by noise.
SMALL = 4096


@dataclass(frozen=True)
class Failure:
    """How a pass failed.

    Attributes:
        kind: the exception's class.
        message: its text.
        place: ``file.py:function`` of the innermost frame.
    """

    kind: str
    message: str
    place: str

    @staticmethod
    def of(error: BaseException) -> Failure:
        """Describe an exception; for strop's own, the one that it wraps."""
        inner = error.__cause__ if isinstance(error, StropError) and error.__cause__ else error
        frames = traceback.extract_tb(inner.__traceback__)
        place = f"{Path(frames[-1].filename).name}:{frames[-1].name}" if frames else ""
        return Failure(type(inner).__name__, str(inner), place)

    def same_as(self, other: Failure) -> bool:
        """Whether two failures are one bug: names and sizes in the message may differ."""
        return (self.kind, self.place) == (other.kind, other.place)


class _Error(Strict):
    kind: str
    message: str
    place: str


class _Crash(Strict):
    """What is read of ``crash.json``."""

    strop_crash: Literal[1]
    step: str = pydantic.Field(alias="pass")
    error: _Error
    files: list[str] = []


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk."""

    folder: Path
    step: str
    failure: Failure

    @property
    def program(self) -> Path:
        """The snapshot of the IR before the pass."""
        return self.folder / PROGRAM

    def run_pass(self, own: str | None = None) -> Pass:
        """The pass, with its options.

        Args:
            own: ``FILE.py:Name`` of a pass that is not strop's, or ``NAME{option=FILE.py:name}``
                where the options of the bundle's pass name code.

        Raises:
            UsageError: the pass or something that its options name is not strop's, and ``own`` does
                not say where that is.
        """
        path = self.folder / PASS
        text = read_text(path, "the bundle's", most_bytes=MOST_TOML, within=self.folder)
        entries = parse_recipe(text, str(path)).passes
        if len(entries) != 1:
            raise UsageError(f"{path} names {len(entries)} passes; a bundle has one")
        (entry,) = entries
        given = parse_pass(own) if own is not None else None
        # Never by a file's name: what comes with a bundle names no code to run.
        if given is None and entry.name not in pass_classes():
            raise UsageError(
                f"the bundle's pass is {PurePath(entry.name).name}, which is not strop's: "
                "say where it is with --pass FILE.py:Name"
            )
        again = given.options if given else {}
        for key, source in entry.sources().items():
            if key != "name" and key not in again:
                raise UsageError(
                    f"the bundle's pass has {key}={without_folder(source)}, which is not strop's: "
                    f"say where it is with --pass '{entry.name}{{{key}=FILE.py:name}}'"
                )
        return make_pass(given.name if given else entry.name, entry.options | again)


def write_bundle(
    error: Exception, running: tuple[Step, Program], inputs: Inputs, recipe: Recipe, out: Path
) -> None:
    """Write a bundle beside ``out``, and say in a note of the error where it is, or why not."""
    step, program = running
    folder = out.resolve().with_name(f"{out.name}.crash")
    own = "" if is_strops(step.run) else f" --pass {origin(step.run)}"
    try:
        require_place(folder, BUNDLE, NAMES)
        pieces = (step, Failure.of(error), inputs, recipe)
        _write(folder, without_weights(program), *pieces)
        again = fails(step.run, load_program(folder / PROGRAM), step.context)
        if again is None or not again.same_as(Failure.of(error)):
            # The crash depends on what was left out.
            _write(folder, program, *pieces)
    except Exception as problem:  # the error of the pass must be reported in any case
        error.add_note(f"no crash bundle was written: {problem}")
    else:
        error.add_note(f"to see it again: strop debug replay {folder}{own}")


def _named(folder: Path) -> Collection[str] | None:
    try:
        values = validated(_Crash, read_json(folder / CRASH, "", within=folder), "")
    except UsageError:
        return None  # whatever it is, strop did not write it
    return {CRASH, *values.files}


BUNDLE = Kind("a crash bundle", CRASH, _named, "Move it away, or name another folder.")


def _write(
    folder: Path, program: Program, step: Step, failure: Failure, inputs: Inputs, recipe: Recipe
) -> None:
    values = {
        "strop_crash": FORMAT,
        "pass": step.name,
        "error": vars(failure),
        "seed": SEED,
        "versions": {p: version(p) for p in PACKAGES} | {"python": platform.python_version()},
    }
    with staged(folder, BUNDLE) as new:
        _write_program(program, new)
        save_inputs(inputs, new)
        (new / PASS).write_text(recipe_text(Recipe(name=step.name, passes=[_entry(step.run)])))
        (new / RECIPE).write_text(recipe_text(recipe.without_folders()))
        _seal(new, values)


def _seal(folder: Path, values: dict[str, Any]) -> None:
    """Write the record of the failure, with the names of all other files."""
    files = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    write_json(folder / CRASH, values | {"files": sorted(files)})


def _write_program(program: Program, folder: Path) -> None:
    save_program(program, folder / PROGRAM, WeightStore(folder / WEIGHTS))
    (folder / PROGRAM_TEXT).write_text(str(program))


def replace_program(bundle: Bundle, program: Program, out: Path) -> None:
    """Write a copy of a bundle with another program, without the inputs of the old one.

    Raises:
        UsageError: the place cannot be written.
    """
    with staged(out, BUNDLE) as new:
        for name in (PASS, RECIPE):
            text = read_text(bundle.folder / name, "the bundle's", within=bundle.folder)
            parse_recipe(text, str(bundle.folder / name))
            (new / name).write_text(text)
        _write_program(program, new)
        _seal(new, read_json(bundle.folder / CRASH, "the bundle's", within=bundle.folder))


def require_bundle_place(out: Path) -> None:
    """Refuse a place for a bundle before the work for it begins.

    Raises:
        UsageError: the path exists and is not a crash bundle.
    """
    require_place(out, BUNDLE, NAMES)


def _entry(run: Pass) -> PassEntry:
    """The recipe entry that makes a pass again; no path of this machine."""
    name = run.name if is_strops(run) else PurePath(origin(run)).name
    return PassEntry(name=name, **run.options()).without_folders()


def without_weights(program: Program) -> Program:
    """The program with seeded noise for its large float weights."""
    generator = torch.Generator().manual_seed(SEED)
    plain = program.clone()
    for name, tensor in plain.weights.items():
        if tensor.is_floating_point() and tensor.numel() > SMALL:
            noise = torch.randn(tensor.shape, generator=generator).to(tensor.dtype)
            trained = isinstance(tensor, torch.nn.Parameter)
            plain.weights[name] = torch.nn.Parameter(noise) if trained else noise
    return plain


def read_bundle(folder: Path) -> Bundle:
    """Read a bundle.

    Raises:
        UsageError: the folder is none, or was damaged.
    """
    path = folder / CRASH
    if not is_there(path):
        raise UsageError(f"{folder} is not a crash bundle: it has no {CRASH}")
    values = validated(_Crash, read_json(path, "the bundle's", within=folder), str(path))
    for file in folder.rglob("*"):
        if file.is_symlink():
            raise UsageError(f"{file} is a link; a crash bundle holds files only")
    return Bundle(folder, values.step, Failure(**values.error.model_dump()))


def fails(run: Pass, program: Program, context: Context | None = None) -> Failure | None:
    """How a pass fails on a program; None if it does not."""
    try:
        run.run(program, context=context)
    except Exception as error:  # whatever it raises: that is what is asked
        return Failure.of(error)
    return None
