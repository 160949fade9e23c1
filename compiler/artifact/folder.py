"""An artifact on disk: its files, and whether they still match their hashes."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strop.compiler.artifact.manifest_schema import BuildValues, ManifestValues
from strop.compiler.targets.runtime import runtime_of
from strop.compiler.targets.target import TARGETS, Target, get_target
from strop.compiler.util.errors import RuntimeRefusedError, UsageError
from strop.compiler.util.files.parsing import validated
from strop.compiler.util.files.reading import file_hash, is_there, opened, read_json, require_inside

if TYPE_CHECKING:
    import numpy as np

MANIFEST = "manifest.json"
BUILD = "build.json"
PROVENANCE = "provenance.json"
REPORT = "report.html"
# Every file that a build writes, except the files that the user adds.
_MODELS = {name for t in TARGETS.values() for name in (t.model_file, *t.more_files)}
OWN_NAMES = _MODELS.union((MANIFEST, BUILD, PROVENANCE, REPORT))
FORMAT = 1


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
    def model_path(self) -> Path:
        """The file that users open: ONNX, for a plain ``onnxruntime.InferenceSession``."""
        return self.path / self.target.model_file

    @property
    def size(self) -> int:
        """Bytes of the model: the ONNX file and its external data."""
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


class Loaded:
    """An artifact opened in its runtime: call it with keyword arrays, get a tuple of arrays."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        runtime, target = runtime_of(artifact.target), artifact.target
        stand_in = runtime.stand_in(target)
        if stand_in is not None and not target.runs_on_stand_in:
            raise RuntimeRefusedError(
                f"{artifact.path} is built for {target.name}; {stand_in.why}, and {stand_in.name} "
                f"would run it. Build it for this machine (--target cpu), or open "
                f"{artifact.model_path} in a session of your own"
            )
        self.session = runtime.open(artifact.path, target)
        self.declared = [i["name"] for i in artifact.manifest["contract"]["inputs"]]

    def __call__(self, **arrays: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], ...]:
        """Run once.

        Raises:
            UsageError: inputs are missing or unknown.
        """
        if set(arrays) != set(self.declared):
            raise UsageError(
                f"the model takes {', '.join(self.declared)}; got {', '.join(arrays) or 'nothing'}"
            )
        return tuple(self.session.run(arrays).values())


def load(path: str | os.PathLike[str]) -> Loaded:
    """Open an artifact as a callable.

    Raises:
        UsageError: the folder is no artifact, or was changed since it was built.
        RuntimeRefusedError: the runtime does not take its files, or the target's device is not
            there.
    """
    return Loaded(read_intact(path))


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
    known = validated(ManifestValues, values, f"{folder}: {MANIFEST}")
    model_file = get_target(known.target).model_file
    if model_file not in known.files:
        raise UsageError(f"{folder}: {MANIFEST} does not name {model_file}")
    return Artifact(folder, known.model_dump())


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
