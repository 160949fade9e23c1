"""A crash bundle: what it takes to see a pass fail again, without the model and its owner's data.

``program.json`` is the IR before the pass, ``pass.toml`` the pass with its options,
``inputs.safetensors`` one small set of inputs, ``crash.json`` the error, versions and seed.
Large float weights are left out, and stand in as seeded noise, unless the crash needs them.
"""

from __future__ import annotations

import json
import platform
import shutil
import traceback
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from strop.compiler.artifact import write_json
from strop.compiler.errors import StropError, UsageError
from strop.compiler.inputs import Inputs
from strop.compiler.passes import Pass, PassResult, Step
from strop.compiler.program import Program
from strop.compiler.recipe import PassEntry, Recipe, load_recipe, recipe_text
from strop.compiler.registry import origin
from strop.compiler.rewrite import Log
from strop.compiler.snapshot import WEIGHTS, WeightStore, load_program, save_inputs, save_program

CRASH, PROGRAM, PASS = "crash.json", "program.json", "pass.toml"
FORMAT = 1
PACKAGES = ("strop", "torch", "onnxscript", "numpy")
SEED = 0
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


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk."""

    folder: Path
    step: str
    failure: Failure
    seed: int

    def program(self) -> Program:
        """The IR before the pass."""
        return load_program(self.folder / PROGRAM)

    def run_pass(self) -> Pass:
        """The pass, with its options.

        Raises:
            UsageError: its file is not there any more.
        """
        (entry,) = load_recipe(str(self.folder / PASS)).passes
        return entry.make()


def write_bundle(
    error: Exception, running: tuple[Step, Program], inputs: Inputs, recipe: Recipe, out: Path
) -> Path:
    """Write a bundle beside ``out`` and say so in a note of the error; returns its folder."""
    step, program = running
    folder = out.resolve().with_name(f"{out.name}.crash")
    if folder.exists() and not (folder / CRASH).is_file():
        raise UsageError(f"{folder} exists and is not a crash bundle; move it away") from error
    failure = Failure.of(error)
    _write(folder, without_weights(program), step, failure, inputs, recipe)
    again = fails(step.run, load_program(folder / PROGRAM))
    if again is None or not again.same_as(failure):
        # The crash depends on what was left out.
        _write(folder, program, step, failure, inputs, recipe)
    error.add_note(f"to see it again: strop debug replay {folder}")
    return folder


def _write(
    folder: Path, program: Program, step: Step, failure: Failure, inputs: Inputs, recipe: Recipe
) -> None:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    save_program(program, folder / PROGRAM, WeightStore(folder / WEIGHTS))
    save_inputs(inputs, folder)
    (folder / PASS).write_text(recipe_text(Recipe(name=step.name, passes=[entry_of(step.run)])))
    (folder / "recipe.toml").write_text(recipe_text(recipe))
    values = {
        "strop_crash": FORMAT,
        "pass": step.name,
        "error": vars(failure),
        "seed": SEED,
        "versions": {p: version(p) for p in PACKAGES} | {"python": platform.python_version()},
    }
    write_json(folder / CRASH, values)


def entry_of(run: Pass) -> PassEntry:
    """The recipe entry that makes a pass again."""
    own = type(run).__module__.startswith("strop.")
    return PassEntry(name=run.name if own else origin(run), **run.options())


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
    try:
        values: dict[str, Any] = json.loads((folder / CRASH).read_text())
        failure = Failure(**values["error"])
        return Bundle(folder, values["pass"], failure, values["seed"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{folder} is not a crash bundle: its {CRASH} cannot be read") from error


def fails(run: Pass, program: Program, log: Log | None = None) -> Failure | None:
    """How a pass fails on a program; None if it does not."""
    try:
        result: PassResult = run.run(program, log)
    except Exception as error:
        return Failure.of(error)
    assert result.program is not program
    return None
