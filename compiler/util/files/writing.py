"""Write files whole or not at all, and check beforehand that a place can be written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from strop.compiler.util.errors import UsageError

# The most that systems take, in bytes; of a path, some is left for files inside it.
_LONGEST_NAME, _LONGEST_PATH = 255, 3800
# What ``write_whole`` adds to a name, in bytes.
_SUFFIX = len("..XXXXXXXX")


def require_short(path: Path, option: str, more: int = 0) -> None:
    """Refuse names that no system takes.

    Args:
        path: absolute.
        option: what the message begins with.
        more: bytes that will be added to the last name.

    Raises:
        UsageError: a name in the path, or all of it, is too long.
    """
    *folders, last = (len(os.fsencode(part)) for part in path.parts)
    if max(0, *folders, last + more) > _LONGEST_NAME or sum(folders) + last > _LONGEST_PATH:
        raise UsageError(
            f"{option}{str(path)[:80]}... is too long: names have at most {_LONGEST_NAME - more} "
            f"bytes here, paths {_LONGEST_PATH}"
        )


def require_writable(path: Path | None, option: str) -> None:
    """Refuse a place for a file before the work for it begins.

    Raises:
        UsageError: it is a folder, a device or a pipe, or its folder is not there or may not be
            written to.
    """
    if path is None:
        return
    require_short(path.absolute(), f"{option}: ", _SUFFIX)
    folder = path.absolute().parent
    if path.is_dir():
        raise UsageError(f"{option}: {path} is a folder; name a file")
    if path.exists() and not path.is_file():
        raise UsageError(f"{option}: {path} is not a regular file; name another")
    if not folder.is_dir():
        raise UsageError(f"{option}: {path} cannot be written: there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{option}: {path} cannot be written: no write access to {folder}")


def require_folder(path: Path | None, option: str) -> None:
    """Refuse a folder that cannot be made or written to, before the work for it begins.

    Raises:
        UsageError: a file stands there or on the way, or there is no write access.
    """
    if path is None:
        return
    require_short(path.absolute(), f"{option}: ")
    there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    if not there.is_dir():
        raise UsageError(f"{option}: {path} cannot be a folder: {there} is a file")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"{option}: {path} cannot be written: no write access to {there}")


def write_whole(path: Path, text: str) -> None:
    """Write beside the file and move it into place: never half a file.

    A link stays, and what it leads to is replaced; nothing but a regular file is.

    Raises:
        UsageError: the disk is full, the folder is gone, or something else stands there.
    """
    try:
        path = path.resolve()
        if path.exists() and not path.is_file():
            raise UsageError(f"{path} could not be written: it is not a regular file")
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
                aside.unlink(missing_ok=True)
                raise
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise UsageError(f"{path} could not be written: {reason}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
