"""Files that are whole or not there, and places that are looked at before anything is measured."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from strop.compiler.errors import UsageError


def require_writable(path: Path | None, option: str) -> None:
    """Refuse a place for a file before the work for it begins.

    Raises:
        UsageError: it is a folder, or its folder is not there or may not be written to.
    """
    if path is None:
        return
    folder = path.absolute().parent
    if path.is_dir():
        raise UsageError(f"{option}: {path} is a folder; name a file")
    if not folder.is_dir():
        raise UsageError(f"{option}: {path} cannot be written: there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{option}: {path} cannot be written: no write access to {folder}")


def write_whole(path: Path, text: str) -> None:
    """Write beside the file and move it into place: never half a file.

    Raises:
        UsageError: the disk is full, or the folder is gone.
    """
    try:
        with tempfile.NamedTemporaryFile(
            "w", dir=path.absolute().parent, prefix=f".{path.name}.", delete=False
        ) as stream:
            aside = Path(stream.name)
            try:
                stream.write(text)
                stream.close()
                aside.chmod(0o666 & ~_umask())
                aside.replace(path)
            except BaseException:
                aside.unlink()
                raise
    except OSError as error:
        raise UsageError(f"{path} could not be written: {error.strerror or error}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
