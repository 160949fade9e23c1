"""The folder that is shipped: written aside, moved into place in one step, checked by hashes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from strop.compiler.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

MANIFEST = "manifest.json"
FORMAT = 1


@dataclass(frozen=True)
class Artifact:
    """A built artifact on disk."""

    path: Path
    manifest: dict[str, Any]

    @property
    def model_path(self) -> Path:
        """The ONNX file, for a plain ``onnxruntime.InferenceSession``."""
        return self.path / "model.onnx"

    @property
    def size(self) -> int:
        """Bytes of the model: the ONNX file and its external data."""
        return sum(f["bytes"] for f in self.manifest["files"].values())

    def damaged(self) -> list[str]:
        """What no longer matches the manifest, one sentence each; empty if all is well."""
        problems = []
        for name, entry in self.manifest["files"].items():
            file = confined(self.path, name)
            if not file.is_file():
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
    artifact = read_artifact(path)
    damaged = artifact.damaged()
    if damaged:
        raise UsageError(f"{path}: {'; '.join(damaged)}. Build it again.")
    return Loaded(artifact)


def read_artifact(path: str | os.PathLike[str]) -> Artifact:
    """Read the manifest of an artifact.

    Raises:
        UsageError: the folder is not an artifact.
    """
    folder = Path(path)
    if not is_artifact(folder):
        raise UsageError(f"{folder} is not a strop artifact: it has no {MANIFEST} of strop's")
    return Artifact(folder, json.loads((folder / MANIFEST).read_text()))


def is_artifact(folder: Path) -> bool:
    """Whether the folder was written by strop."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(manifest, dict) and manifest.get("strop_format") == FORMAT


def confined(folder: Path, name: str) -> Path:
    """A path inside the folder.

    Raises:
        UsageError: the name leads out of it.
    """
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise UsageError(f"{folder}: the manifest names '{name}', which is outside the artifact")
    return path


def file_hash(path: Path) -> str:
    """SHA-256 of a file, read as a stream."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def require_free(out: Path, force: bool) -> None:
    """Refuse an output path that holds something not ours.

    Raises:
        UsageError: it exists and is neither empty nor an artifact, and ``force`` is off.
    """
    if not out.exists() or force or is_artifact(out):
        return
    if out.is_dir() and not any(out.iterdir()):
        return
    raise UsageError(f"{out} exists and is not a strop artifact; --force replaces it")


@contextlib.contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A temporary folder beside ``out`` that becomes ``out`` if the block ends well.

    Whatever happens inside, ``out`` is what it was before or the whole new folder.

    Raises:
        UsageError: the disk is full, or the place cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise UsageError(f"{out.parent} cannot be written: {error.strerror}") from error
    try:
        yield stage
        stage.chmod(0o755)
        _publish(stage, out)
    except OSError as error:
        raise UsageError(f"{out} could not be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _publish(stage: Path, out: Path) -> None:
    if not out.exists():
        stage.rename(out)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old.", dir=out.parent))
    out.rename(old / out.name)
    try:
        stage.rename(out)
    except OSError:
        (old / out.name).rename(out)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def write_json(path: Path, values: Any) -> None:
    """JSON with sorted keys, so that equal values are equal bytes."""
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")
