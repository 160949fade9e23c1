"""Files that the user adds to the artifact, and the names of the classes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from strop.compiler.artifact.folder import own_names
from strop.compiler.frontend.programs import Programs, is_several
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


def read_companions(programs: Programs) -> Companions:
    """Check the files that the user adds to the artifact, before anything is compiled.

    Raises:
        UsageError: a file is missing or no regular file, or its name is taken; or labels are no
            names by index.
    """
    files: dict[str, Path] = {}
    own = own_names(programs.models)
    given_to = "Programs" if is_several(programs.models) else "Model"
    for given in programs.files:
        path = Path(given)
        if path.name in own or path.name in files:
            taken = "strop's own" if path.name in own else f"another of {given_to}.files"
            raise UsageError(f"{given_to}.files: {path} has the name of {taken} ('{path.name}')")
        if not path.is_file():
            raise UsageError(f"{given_to}.files: {path} is missing or is not a regular file")
        # A factory may change the working folder later; the path is read when the file is copied.
        files[path.name] = path.absolute()
    return Companions(files, _labels(programs.labels, given_to))


def _labels(given: Mapping[int, str] | None, given_to: str) -> dict[int, str]:
    for index, name in (given or {}).items():
        if type(index) is not int or not isinstance(name, str):
            raise UsageError(f"{given_to}.labels: {index!r}: {name!r}; write {{0: 'name', 1: ...}}")
    return dict(sorted((given or {}).items()))
