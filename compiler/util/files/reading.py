"""The one reader of files that come from outside.

A name may stand for a pipe that never ends, a device, a folder, a link to a private file or a
file larger than memory. So a file is opened here, without waiting for it, and looked at before it
is read: it is regular, of a bounded size, and inside the folder that it came with.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from strop.compiler.util.errors import UsageError
from strop.compiler.util.files.parsing import parse_json, parse_toml

MEBIBYTE = 1 << 20
# What a person or strop itself writes as text; graphs of large models are the largest of it.
MOST_JSON = 64 * MEBIBYTE
MOST_TOML = MEBIBYTE
# A larger file that takes almost no disk space is sparse: it costs the sender nothing, and its
# reader memory and time.
_MAY_BE_HOLES = 64 * MEBIBYTE
_LEAST_STORED = 1 / 1000
# Opening a pipe to read from it would wait until something writes to it.
_WITHOUT_WAITING = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


@contextmanager
def opened(
    path: Path, what: str, *, within: Path | None = None
) -> Iterator[io.BufferedReader[io.FileIO]]:
    """A regular file, open for reading.

    Args:
        path: of the file.
        what: it is, for messages: "the manifest".
        within: the folder that it came with, which no link may lead out of.

    Raises:
        UsageError: it is not there, is not a regular file, leads out of the folder, or may not be
            read.
    """
    if within is not None:
        require_inside(path, what, within)
    try:
        # Looked at before it is opened, since opening some devices has effects, and again
        # afterwards, when nobody can put something else there.
        _require_regular(path.stat(), path, what)
        descriptor = os.open(path, _WITHOUT_WAITING)
    except (OSError, ValueError) as error:
        raise UsageError(f"{what} {path} cannot be read: {_reason(error)}") from error
    with io.FileIO(descriptor) as raw, io.BufferedReader(raw) as stream:
        _require_regular(os.fstat(descriptor), path, what)
        yield stream


def require_inside(path: Path, what: str, folder: Path) -> None:
    """Refuse a path that leads out of the folder that it came with, by its name or by a link.

    Raises:
        UsageError: it does.
    """
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a zero byte in a name
        raise UsageError(f"{what} {path} cannot be read: {_reason(error)}") from error
    if not inside:
        raise UsageError(f"{what} {path} leads out of {folder}; such files are not read")


def is_there(path: Path) -> bool:
    """Whether anything stands at a path, a link that leads nowhere included.

    Raises:
        UsageError: the system does not say, as for a name of over 255 bytes.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {_reason(error)}") from error
    return True


def _require_regular(status: os.stat_result, path: Path, what: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{what} {path} is not a regular file")
    if status.st_size > _MAY_BE_HOLES and status.st_blocks * 512 < status.st_size * _LEAST_STORED:
        raise UsageError(f"{what} {path} is a sparse file; such files are not read")


def read_bytes(
    path: Path, what: str, *, most_bytes: int = MOST_JSON, within: Path | None = None
) -> bytes:
    """The whole of a file.

    Raises:
        UsageError: as ``opened``; or the file is larger than ``most_bytes``.
    """
    with opened(path, what, within=within) as stream:
        try:
            content = stream.read(most_bytes + 1)
        except OSError as error:
            raise UsageError(f"{what} {path} cannot be read: {_reason(error)}") from error
    if len(content) > most_bytes:
        raise UsageError(f"{what} {path} is larger than {most_bytes:,} bytes")
    return content


def read_text(
    path: Path, what: str, *, most_bytes: int = MOST_JSON, within: Path | None = None
) -> str:
    """The whole of a text file.

    Raises:
        UsageError: as ``read_bytes``; or it is not UTF-8.
    """
    content = read_bytes(path, what, most_bytes=most_bytes, within=within)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{what} {path} is not text in UTF-8") from error


def read_json(
    path: Path, what: str, *, most_bytes: int = MOST_JSON, within: Path | None = None
) -> Any:
    """The values of a JSON file: dicts, lists, strings, finite numbers, booleans and None.

    Raises:
        UsageError: as ``read_text``; or it is no JSON that ``parse_json`` takes.
    """
    text = read_text(path, what, most_bytes=most_bytes, within=within)
    return parse_json(text, f"{what} {path}")


def read_toml(
    path: Path, what: str, *, most_bytes: int = MOST_TOML, within: Path | None = None
) -> dict[str, Any]:
    """The values of a TOML file.

    Raises:
        UsageError: as ``read_text``; or it is no TOML that ``parse_toml`` takes.
    """
    text = read_text(path, what, most_bytes=most_bytes, within=within)
    return parse_toml(text, f"{what} {path}")


def file_hash(path: Path, what: str = "the file", *, within: Path | None = None) -> str:
    """SHA-256 of a regular file, read as a stream.

    Raises:
        UsageError: as ``opened``.
    """
    with opened(path, what, within=within) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
