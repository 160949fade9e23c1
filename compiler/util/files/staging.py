"""Write a folder aside and move it into place, whatever happens in between.

While a build writes, ``.<out>.strop-XXXX`` stands beside ``out``, or ``.strop-XXXX`` inside it
where ``out`` cannot be moved: ``new`` is what is being written, ``old`` what it replaces, ``lock``
is held as long as the process lives. A later build of the same folder sweeps up after one that
died. Builds of one folder may run side by side; they publish one after the other.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from strop.compiler.util import interrupts
from strop.compiler.util.errors import UsageError
from strop.compiler.util.files.holdings import WORK_INSIDE, Kind, holdings, require_replaceable
from strop.compiler.util.files.publish import MOVING, NEW, OLD, publish, roll_back
from strop.compiler.util.files.writing import require_short

LOCK = "lock"
# Seconds that a build waits for another one to publish, and between two looks.
PATIENCE, PAUSE = 60.0, 0.02
# What must be free for the smallest of artifacts, in bytes.
_LEAST_SPACE = 1 << 18
# What the name of a workspace adds to the folder's, in bytes.
_SUFFIX = len("..strop-XXXXXXXX")
_RANDOM = r"\w{8}"


@contextmanager
def staged(
    out: Path, kind: Kind, force: bool = False, published: Callable[[], None] = lambda: None
) -> Iterator[Path]:
    """A folder that becomes ``out`` if the block ends well.

    Whatever happens inside, ``out`` is what it was before, or the whole new folder; what is not
    strop's stays there either way.

    Args:
        out: where it will stand; links are followed.
        kind: says which files of ``out`` are strop's.
        force: files that are not may be replaced, where the new ones have their names.
        published: called in the moment in which the new folder stands; no signal comes between.

    Raises:
        UsageError: the disk is full, the place cannot be written, or something is in the way.
    """
    out = real_path(out)
    try:
        with _workspace(out, kind) as work:
            (work / NEW).mkdir()
            yield work / NEW
            with _turn(out), interrupts.held():
                publish(work, out, kind, force)
                published()
    except OSError as error:
        raise UsageError(f"{out} could not be written: {error.strerror or error}") from error


def require_place(out: Path, kind: Kind, wanted: Collection[str], force: bool = False) -> None:
    """Refuse a place for a folder before the work for it begins.

    Args:
        out: where it will stand.
        kind: says which files there are strop's.
        wanted: the files that will be written.
        force: a folder that holds other files, and is not of the kind, may be written into.

    Raises:
        UsageError: it cannot be written to, or holds something that is not strop's to replace.
    """
    out = real_path(out)
    try:
        if Path.cwd().is_relative_to(out):
            raise UsageError(f"{out} is the working folder or holds it; name a folder of its own")
        with _tried(out, kind) as folder:
            (folder / "space").write_bytes(os.urandom(_LEAST_SPACE))
            if out.exists():
                _require_ours(out, kind, wanted, force)
    except OSError as error:
        raise UsageError(f"{out} cannot be written: {error.strerror or error}") from error


def real_path(path: Path) -> Path:
    """The path without links.

    Raises:
        UsageError: it is a loop of links, or no path at all.
    """
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(f"{path} cannot be used: {error}") from error


@contextmanager
def _tried(out: Path, kind: Kind) -> Iterator[Path]:
    """A folder where a workspace would stand; above it where there is no such place yet.

    Raises:
        UsageError: something else is, or is above, the folder, or a name is too long.
    """
    there = next(p for p in (out, *out.parents) if os.path.lexists(p))
    if not there.is_dir():
        raise UsageError(f"{out} cannot be written: {there} is not a folder")
    require_short(out, "", _SUFFIX)
    if out.parent.exists():
        with _workspace(out, kind) as work:
            yield work
    else:
        with tempfile.TemporaryDirectory(prefix=WORK_INSIDE, dir=there) as folder:
            yield Path(folder)


def _require_ours(out: Path, kind: Kind, wanted: Collection[str], force: bool) -> None:
    found = holdings(out, kind)
    if found.foreign and not found.is_kind and not force:
        raise UsageError(
            f"{out} exists and is not {kind.title}: it holds '{found.foreign[0]}'. {kind.advice}"
        )
    require_replaceable(out, wanted, found.own, kind, force)


@contextmanager
def _workspace(out: Path, kind: Kind) -> Iterator[Path]:
    out.parent.mkdir(parents=True, exist_ok=True)
    with _turn(out):
        _sweep(out, kind)
        work = _make_workspace(out)
        lock = _lock(work, os.O_CREAT)
    try:
        yield work
    finally:
        _discard(work)
        os.close(lock)


def _make_workspace(out: Path) -> Path:
    """A workspace beside the folder; inside it where that cannot be moved."""
    try:
        work = Path(tempfile.mkdtemp(prefix=_prefix(out), dir=out.parent))
    except OSError:
        if not out.is_dir():
            raise
    else:
        if not out.exists() or _can_be_moved(out, work):
            return work
        _discard(work)
    return Path(tempfile.mkdtemp(prefix=WORK_INSIDE, dir=out))


def _can_be_moved(out: Path, work: Path) -> bool:
    """Whether a folder could be moved into a workspace; tried with a move that must fail.

    A folder cannot be moved onto one that is not empty. Systems look first whether it can be
    moved at all: the error tells.
    """
    full = work / OLD / "full"
    full.mkdir(parents=True)
    try:
        out.rename(work / OLD)
    except OSError as error:
        return error.errno in (errno.ENOTEMPTY, errno.EEXIST)
    finally:
        shutil.rmtree(work / OLD)
    raise AssertionError(f"{out} was moved onto a folder that is not empty")


def _prefix(out: Path) -> str:
    return f".{out.name}.strop-"


@contextmanager
def _turn(out: Path) -> Iterator[None]:
    """The only process that changes what stands at ``out``, or beside it, for a moment.

    Raises:
        UsageError: another one has not done with it for a long time.
    """
    folder = os.open(out.parent, os.O_RDONLY)
    try:
        _wait_for(folder, out)
        yield
    finally:
        os.close(folder)


def _wait_for(folder: int, out: Path) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise UsageError(
                    f"{out} could not be written: another process has been writing it, or a "
                    f"folder beside it, for {PATIENCE:g} s"
                ) from None
            time.sleep(PAUSE)
        else:
            return


def _lock(work: Path, create: int = 0) -> int:
    """Lock the workspace; the kernel unlocks it when the process ends, however it ends.

    Raises:
        BlockingIOError: a living process holds it.
    """
    lock = os.open(work / LOCK, create | os.O_RDWR | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise
    return lock


def _sweep(out: Path, kind: Kind) -> None:
    """Put back and remove what dead builds of this folder left."""
    for folder, prefix in ((out.parent, _prefix(out)), (out, WORK_INSIDE)):
        if not folder.is_dir():
            continue
        workspace = re.compile(re.escape(prefix) + _RANDOM)
        for work in folder.iterdir():
            if workspace.fullmatch(work.name) and not work.is_symlink():
                _sweep_one(work, out, kind)


def _sweep_one(work: Path, out: Path, kind: Kind) -> None:
    try:
        lock = _lock(work)
    except FileNotFoundError:
        # It died before it took the lock, or it is no workspace.
        with suppress(OSError):
            work.rmdir()
    except (BlockingIOError, NotADirectoryError, PermissionError):
        pass  # a build is at work there, or it is a file, or another user's
    else:
        roll_back(work, out, kind)
        _discard(work)
        os.close(lock)


def _discard(work: Path) -> None:
    """Remove a workspace, and nothing in it that is not a workspace's."""
    for name in (NEW, OLD):
        shutil.rmtree(work / name, ignore_errors=True)
    for name in (MOVING, "space", LOCK):
        (work / name).unlink(missing_ok=True)
    with suppress(OSError):
        work.rmdir()
