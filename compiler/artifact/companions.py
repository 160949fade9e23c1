"""Files that the user adds to the artifact, and the names of the classes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from strop.compiler.artifact.folder import OWN_NAMES
from strop.compiler.frontend.model import Model
from strop.compiler.util.errors import UsageError


@dataclass(frozen=True)
class Companions:
    """Files to copy beside the model, and labels for the manifest.

    Attributes:
        files: by the name that they will have.
        labels: class names by index.
    """

    files: Mapping[str, Path]
    labels: Mapping[int, str]

    def copy_to(self, folder: Path) -> None:
        """Copy every file into the folder, without its times and rights."""
        for name, path in self.files.items():
            shutil.copyfile(path, folder / name)


def read_companions(model: Model) -> Companions:
    """Check the files that the user adds to the artifact, before anything is compiled.

    Raises:
        UsageError: a file is missing or no regular file, or its name is taken; or labels are no
            names by index.
    """
    files: dict[str, Path] = {}
    for given in model.files:
        path = Path(given)
        if path.name in OWN_NAMES or path.name in files:
            taken = "strop's own" if path.name in OWN_NAMES else "another of Model.files"
            raise UsageError(f"Model.files: {path} has the name of {taken} ('{path.name}')")
        if not path.is_file():
            raise UsageError(f"Model.files: {path} is missing or is not a regular file")
        # A factory may change the working folder later; the path is read when the file is copied.
        files[path.name] = path.absolute()
    return Companions(files, _labels(model.labels))


def _labels(given: Mapping[int, str] | None) -> dict[int, str]:
    for index, name in (given or {}).items():
        if type(index) is not int or not isinstance(name, str):
            raise UsageError(f"Model.labels: {index!r}: {name!r}; write {{0: 'name', 1: ...}}")
    return dict(sorted((given or {}).items()))
