"""Numbered dumps of the IR between passes, in a folder that holds nothing else.

The folder's ``dump.manifest`` names the files of a dump, so that the next one replaces those and no
others. A file that is not named there is never overwritten. Weights are written once under the
hash of their content, and stay.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from strop.compiler.ir.program import Program
from strop.compiler.ir.running import Inputs
from strop.compiler.ir.snapshots.weight_store import WeightStore
from strop.compiler.ir.snapshots.writer import INPUTS, WEIGHTS, save_inputs, save_program
from strop.compiler.rewriting.passes import Instrument, PassResult, Step
from strop.compiler.util.errors import UsageError
from strop.compiler.util.files.parsing import Strict, validated
from strop.compiler.util.files.reading import read_json
from strop.compiler.util.files.staging import real_path
from strop.compiler.util.files.writing import require_folder, write_whole

# Not .json: that is what snapshots end with.
DUMP = "dump.manifest"
FORMAT = 1


class _Named(Strict):
    strop_dump: Literal[1]
    files: list[str]


class Dump(Instrument):
    """Writes the program into a folder after each step that changed it.

    ``003_name.txt`` is for people, ``003_name.json`` a snapshot; ``inputs.safetensors`` is what
    the programs can be run on.
    """

    def __init__(self, folder: Path, inputs: Inputs) -> None:
        self.folder = folder
        self._inputs = inputs
        self._store = WeightStore(folder / WEIGHTS)
        self._names: list[str] = []
        self._count = 0

    def before(self, step: Step, program: Program) -> None:
        if self._count == 0:
            self.start(program)

    def start(self, captured: Program) -> None:
        """Write the program as captured, and the inputs; remove the dump that was there.

        Raises:
            UsageError: something that is not strop's stands in the way.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        require_dump_place(self.folder)
        for name in _named(self.folder) or ():
            (self.folder / name).unlink(missing_ok=True)
        self._fresh(INPUTS)
        save_inputs(self._inputs, self.folder)
        self._write("capture", captured)

    def after(self, step: Step, result: PassResult) -> None:
        self._count += 1
        if result.modified:
            self._write(step.name, result.program)

    def _write(self, name: str, program: Program) -> None:
        stem = f"{self._count:03d}_{name.replace('/', '_')}"
        self._fresh(f"{stem}.txt").write_text(str(program))
        save_program(program, self._fresh(f"{stem}.json"), self._store)

    def _fresh(self, name: str) -> Path:
        """The path of a file that is not there yet, named as the dump's before it is written."""
        path = self.folder / name
        if os.path.lexists(path):
            raise UsageError(f"--dump-ir: {path} is not of a dump; move it away")
        self._names.append(name)
        values = {"strop_dump": FORMAT, "files": self._names}
        write_whole(self.folder / DUMP, json.dumps(values, indent=1) + "\n")
        return path


def require_dump_place(folder: Path, out: Path | None = None) -> None:
    """Refuse a folder for dumps before the work for them begins.

    Args:
        folder: where they will be.
        out: where the artifact will be.

    Raises:
        UsageError: it cannot be written, holds other files, or is, holds or lies in ``out``.
    """
    require_folder(folder, "--dump-ir")
    place = real_path(folder)
    if out is not None:
        out = real_path(out)
        if place.is_relative_to(out) or out.is_relative_to(place):
            raise UsageError(f"--dump-ir: {folder} and {out} must be apart: one holds the other")
    if place.is_dir() and not _holds_dumps(place):
        raise UsageError(f"--dump-ir: {folder} holds other files than a dump; name a new folder")
    if (place / WEIGHTS).is_symlink():
        raise UsageError(f"--dump-ir: {place / WEIGHTS} is a link; move it away")


def _holds_dumps(folder: Path) -> bool:
    """Whether a folder is a dump, or holds dumps of several programs, or nothing."""
    if _named(folder) is not None:
        return True
    return all(one.is_dir() and _named(one) is not None for one in folder.iterdir())


def _named(folder: Path) -> Sequence[str] | None:
    """The files of the dump in a folder, as far as they are regular; None if there is no dump."""
    try:
        names = validated(_Named, read_json(folder / DUMP, "", within=folder), "").files
    except UsageError:
        return None  # whatever it is, strop did not write it
    there = {p.name for p in folder.iterdir() if p.is_file() and not p.is_symlink()}
    return [name for name in names if name in there]
