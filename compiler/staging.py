"""Write a folder aside and move it into place in one step, whatever happens in between.

Beside ``out`` stands ``.<out>.strop-XXXX`` while a build runs: ``new`` is what is being written,
``old`` what it replaces, ``lock`` is held as long as the process lives. A later build sweeps up
after a process that died.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from strop.compiler.errors import UsageError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that becomes ``out`` if the block ends well.

    Whatever happens inside, ``out`` is what it was before, or the whole new folder.

    Raises:
        UsageError: the disk is full, or the place cannot be written.
    """
    out = out.resolve()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _sweep(out)
        with _workspace(out) as work:
            new = work / "new"
            new.mkdir()
            yield new
            _publish(new, out, work / "old")
    except OSError as error:
        raise UsageError(f"{out} could not be written: {error.strerror or error}") from error


@contextmanager
def _workspace(out: Path) -> Iterator[Path]:
    work = Path(tempfile.mkdtemp(prefix=_prefix(out), dir=out.parent))
    lock = _lock(work)
    try:
        yield work
    finally:
        _remove(work, out)
        os.close(lock)


def _remove(work: Path, out: Path) -> None:
    """Remove a workspace; what it was about to replace, and did not, goes back first."""
    if (work / "old").exists() and not out.exists():
        (work / "old").rename(out)
    shutil.rmtree(work)


def _prefix(out: Path) -> str:
    return f".{out.name}.strop-"


def _lock(work: Path) -> int:
    """Take the workspace; the kernel lets go of it when the process ends, however it ends.

    Raises:
        BlockingIOError: a living process holds it.
    """
    lock = os.open(work / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise
    return lock


def _sweep(out: Path) -> None:
    """Remove what dead builds of this folder left."""
    left = [p for p in out.parent.iterdir() if p.name.startswith(_prefix(out)) and p.is_dir()]
    for work in left:
        try:
            lock = _lock(work)
        except (BlockingIOError, FileNotFoundError, PermissionError):
            continue  # a build is at work there, or has just ended, or it is another user's
        _remove(work, out)
        os.close(lock)


def _publish(new: Path, out: Path, old: Path) -> None:
    if not out.exists():
        new.rename(out)
    elif not _exchange(new, out):
        out.rename(old)
        new.rename(out)


def _exchange(a: Path, b: Path) -> bool:
    """Swap two paths in one step; False where the system or the file system cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    done = libc.renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE)
    if done == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS):
        return False
    raise OSError(code, os.strerror(code))
