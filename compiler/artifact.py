"""The folder that is shipped: what it holds, and whether it still matches its hashes."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pydantic

from strop.compiler.errors import UsageError
from strop.compiler.reading import file_hash

if TYPE_CHECKING:
    import numpy as np

MODEL = "model.onnx"
MANIFEST = "manifest.json"
BUILD = "build.json"
PROVENANCE = "provenance.json"
REPORT = "report.html"
# Every file that a build writes, but for what is shipped beside the model at its owner's wish.
OWN_NAMES = frozenset({MODEL, f"{MODEL}.data", MANIFEST, BUILD, PROVENANCE, REPORT})
FORMAT = 1


class _File(pydantic.BaseModel):
    sha256: str
    bytes: int


class _Tensor(pydantic.BaseModel):
    name: str
    dtype: str
    shape: list[int | str]


class _Dim(pydantic.BaseModel):
    name: str
    min: int
    max: int | None


class _Contract(pydantic.BaseModel):
    inputs: list[_Tensor]
    outputs: list[_Tensor]
    dims: list[_Dim]


class _Drift(pydantic.BaseModel):
    output: str
    max_abs: float | None
    sqnr_db: float | None
    cosine: float | None
    agreement: float
    finite: bool


class _Pass(pydantic.BaseModel):
    name: str
    nodes_before: int
    nodes_after: int
    bytes_before: int
    bytes_after: int
    rewrites: dict[str, int]
    previous: _Drift | None
    original: _Drift | None


class _Check(pydantic.BaseModel):
    case: str
    output: str
    max_error: float
    cosine: float | None


class _Manifest(pydantic.BaseModel):
    """What a manifest must hold to be read; it may hold more."""

    target: str
    contract: _Contract
    passes: list[_Pass]
    checks: Annotated[list[_Check], pydantic.Field(min_length=1)]
    metrics: dict[str, dict[str, float]]
    files: dict[str, _File]
    side_files: dict[str, _File] = {}
    assets: dict[str, _File] = {}
    labels: dict[str, str] = {}
    notes: list[str]


@dataclass(frozen=True)
class Artifact:
    """A built artifact on disk."""

    path: Path
    manifest: dict[str, Any]

    @property
    def model_path(self) -> Path:
        """The ONNX file, for a plain ``onnxruntime.InferenceSession``."""
        return self.path / MODEL

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
        try:
            values = json.loads((self.path / BUILD).read_text())
        except (OSError, ValueError):
            return {}  # nothing needs it: it may be left out of what is shipped
        return values if isinstance(values, dict) else {}

    def damaged(self) -> list[str]:
        """What no longer matches the manifest, one sentence each; empty if all is well.

        Side files are for debugging: one may be left out where the artifact is shipped.
        """
        problems = []
        side_files = self.manifest.get("side_files", {})
        assets = self.manifest.get("assets", {})
        for name, entry in (self.manifest["files"] | assets | side_files).items():
            file = confined(self.path, name)
            if not file.is_file():
                if name not in side_files:
                    problems.append(f"{name} is missing")
            elif file_hash(file) != entry["sha256"]:
                problems.append(f"{name} has changed since it was built")
        return problems


class Loaded:
    """An artifact opened in its runtime: call it with keyword arrays, get a tuple of arrays."""

    def __init__(self, artifact: Artifact) -> None:
        from strop.compiler.check import open_session
        from strop.compiler.target import get_target

        self.artifact = artifact
        target = get_target(artifact.manifest["target"])
        self.session = open_session(artifact.model_path, target)
        self.inputs = [i.name for i in self.session.get_inputs()]
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
        return tuple(self.session.run(None, {n: arrays[n] for n in self.inputs}))


def load(path: str | os.PathLike[str]) -> Loaded:
    """Open an artifact as a callable.

    Raises:
        UsageError: the folder is no artifact, or was changed since it was built.
    """
    return Loaded(read_intact(path))


def read_artifact(path: str | os.PathLike[str]) -> Artifact:
    """Read the manifest of an artifact.

    Raises:
        UsageError: the folder is not an artifact, or its manifest was damaged.
    """
    folder = Path(path)
    values = _read_manifest(folder)
    if values is None:
        raise UsageError(f"{folder} is not a strop artifact: it has no {MANIFEST} of strop's")
    if values["strop_format"] != FORMAT:
        raise UsageError(
            f"{folder} has format {values['strop_format']}, this strop reads format {FORMAT}"
        )
    try:
        known = _Manifest.model_validate(values)
    except pydantic.ValidationError as error:
        place = ".".join(str(p) for p in error.errors()[0]["loc"])
        raise UsageError(f"{folder}: {MANIFEST} is damaged at '{place}'") from error
    if MODEL not in known.files:
        raise UsageError(f"{folder}: {MANIFEST} does not name {MODEL}")
    return Artifact(folder, values)


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


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    try:
        values = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return None  # no such file, or not JSON: whatever it is, strop did not write it
    return values if isinstance(values, dict) and "strop_format" in values else None


def confined(folder: Path, name: str) -> Path:
    """A path inside the folder.

    Raises:
        UsageError: the name leads out of it.
    """
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise UsageError(f"{folder}: the manifest names '{name}', which is outside the artifact")
    return path


def write_json(path: Path, values: Any) -> None:
    """JSON with sorted keys, so that equal values are equal bytes."""
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")
