"""An artifact on disk: its files, and whether they still match their hashes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strop.compiler.artifact.manifest_schema import BuildValues, read_manifest
from strop.compiler.frontend.programs import choose_program
from strop.compiler.targets.target import MAIN, TARGETS, Target, get_target
from strop.compiler.util.errors import UsageError
from strop.compiler.util.files.parsing import validated
from strop.compiler.util.files.reading import file_hash, is_there, opened, read_json, require_inside

MANIFEST = "manifest.json"
BUILD = "build.json"
PROVENANCE = "provenance.json"
REPORT = "report.html"
GENAI_CONFIG = "genai_config.json"
"""The settings by which onnxruntime-genai runs a decoder."""
# Every file that a build of one program writes, except the files that the user adds.
_MODELS = {name for t in TARGETS.values() for name in (t.model_file, *t.more_files)}
OWN_NAMES = _MODELS.union((MANIFEST, BUILD, PROVENANCE, REPORT, GENAI_CONFIG))
FORMAT = 1


def provenance_file(program: str) -> str:
    """The side file that says where the nodes of a program's file come from."""
    return PROVENANCE if program == MAIN else f"{program}.{PROVENANCE}"


def own_names(programs: Iterable[str]) -> set[str]:
    """Every file that a build of these programs writes, except the files that the user adds."""
    names = set(OWN_NAMES)
    for program in programs:
        names |= {provenance_file(program), *(t.file_of(program) for t in TARGETS.values())}
    return names


@dataclass(frozen=True)
class Artifact:
    """A built artifact on disk; its manifest was validated by ``ManifestValues``."""

    path: Path
    manifest: dict[str, Any]

    @property
    def target(self) -> Target:
        """Where it runs."""
        return get_target(self.manifest["target"])

    @property
    def programs(self) -> tuple[str, ...]:
        """The names of its programs."""
        return tuple(self.manifest.get("programs", (MAIN,)))

    def program(self, name: str = "") -> dict[str, Any]:
        """What the manifest says of one program: contract, passes, checks, sizes, metrics.

        Args:
            name: needed where there are several.

        Raises:
            UsageError: there is no such program, or there are several and none is named.
        """
        chosen = self.choose(name)
        programs: dict[str, dict[str, Any]] = self.manifest.get("programs", {MAIN: self.manifest})
        return programs[chosen]

    def choose(self, name: str = "") -> str:
        """The name of a program that was asked for; raises as ``program`` does."""
        return choose_program(name, self.programs, self.path)

    def path_of(self, program: str = "") -> Path:
        """The file of a program that users open: ONNX, for a plain ``InferenceSession``.

        Raises:
            UsageError: as ``program``.
        """
        return self.path / self.target.file_of(self.choose(program))

    @property
    def model_path(self) -> Path:
        """The file that users open, where there is one program."""
        return self.path_of()

    @property
    def size(self) -> int:
        """Bytes of the model: the ONNX files and their external data."""
        return sum(f["bytes"] for f in self.manifest["files"].values())

    def file_names(self) -> set[str]:
        """The files that the manifest names, and those that every build writes beside them."""
        named = (self.manifest.get(part, {}) for part in ("files", "assets", "side_files"))
        return {MANIFEST, BUILD, REPORT}.union(*named)

    def build_record(self) -> dict[str, Any]:
        """Times and memory of the build; empty where ``build.json`` was not kept."""
        path = self.path / BUILD
        if not is_there(path):
            return {}
        values = read_json(path, "the file", within=self.path)
        return validated(BuildValues, values, str(path)).model_dump()

    def damaged(self) -> list[str]:
        """What no longer matches the manifest, one sentence each; empty if all is well.

        Side files are for debugging; they may be deleted before an artifact is deployed.
        """
        side_files = self.manifest["side_files"]
        named = self.manifest["files"] | self.manifest["assets"] | side_files
        for name in named:
            require_inside(self.path / name, "the file", self.path)
        missing = [name for name in named if not is_there(self.path / name)]
        problems = [f"{name} is missing" for name in missing if name not in side_files]
        for name in named.keys() - missing:
            file, entry = self.path / name, named[name]
            # The size first: it is cheap to compare, and shows most changes.
            with opened(file, "the file", within=self.path) as stream:
                size = os.fstat(stream.fileno()).st_size
            if size != entry["bytes"] or file_hash(file) != entry["sha256"]:
                problems.append(f"{name} has changed since it was built")
        return sorted(problems)


def read_artifact(path: str | os.PathLike[str]) -> Artifact:
    """Read the manifest of an artifact.

    Raises:
        UsageError: the folder is not an artifact, or its manifest was damaged.
    """
    folder = Path(path)
    path = folder / MANIFEST
    try:
        values = read_json(path, "the file", within=folder) if is_there(path) else None
    except UsageError as error:
        raise UsageError(f"{folder} is not a strop artifact, or was damaged: {error}") from error
    if not isinstance(values, dict) or "strop_format" not in values:
        raise UsageError(f"{folder} is not a strop artifact: it has no {MANIFEST} of strop's")
    if values["strop_format"] != FORMAT:
        raise UsageError(
            f"{folder} has format {values['strop_format']}, this strop reads format {FORMAT}"
        )
    artifact = Artifact(folder, read_manifest(values, f"{folder}: {MANIFEST}"))
    for program in artifact.programs:
        if (file := artifact.target.file_of(program)) not in artifact.manifest["files"]:
            raise UsageError(f"{folder}: {MANIFEST} does not name {file}")
    return artifact


def read_intact(path: str | os.PathLike[str]) -> Artifact:
    """Read an artifact that is as it was built.

    Raises:
        UsageError: the folder is no artifact, or was changed since it was built.
    """
    artifact = read_artifact(path)
    damaged = artifact.damaged()
    if damaged:
        raise UsageError(f"{path}: {'; '.join(damaged)}. Build it again.")
    return artifact


def write_json(path: Path, values: Any) -> None:
    """JSON with sorted keys, so that equal values are equal bytes."""
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")
