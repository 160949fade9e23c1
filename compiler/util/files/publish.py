"""Move what was written into its final place.

A folder that holds nothing but strop's own files is exchanged in one step. One that also holds
the user's files, or cannot be moved (a mount point, a folder of a lower overlay layer), is
replaced file by file: the seal goes first and comes last, so that at every moment a reader finds
the old folder, the new one, or none of its kind. If the process dies in between, what was moved
stands in the workspace, and the next build puts it back.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from strop.compiler.util.files.holdings import WORK_INSIDE, Kind, holdings, require_replaceable
from strop.compiler.util.files.writing import write_whole

# What a workspace holds: the folder being written, files moved aside, and the names of the files
# that are about to be moved in.
NEW, OLD, MOVING = "new", "old", "moving.json"
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
# The system or the file system has no exchange, or not for this folder.
_CANNOT = (errno.EINVAL, errno.ENOSYS, errno.EXDEV, errno.EBUSY)


def publish(work: Path, out: Path, kind: Kind, force: bool) -> None:
    """Make the new folder of a workspace what stands at ``out``.

    Raises:
        UsageError: a file of the user is in the way.
        OSError: a file cannot be moved; what was moved is back.
    """
    new = work / NEW
    if not out.exists():
        new.rename(out)
        return
    found = holdings(out, kind)
    shutil.copymode(out, new)
    if not found.foreign and _holds_no_work(out) and exchange(new, out):
        # A file that was added in this very moment is in the old folder now.
        if not holdings(new, kind).foreign:
            return
        exchange(new, out)
    wanted = [p.relative_to(new).as_posix() for p in new.rglob("*") if p.is_file()]
    wanted.sort(key=lambda name: (name == kind.seal, name))
    require_replaceable(out, wanted, found.own, kind, force)
    taken = [name for name in wanted if name not in found.own and (out / name).exists()]
    try:
        _replace_files(work, out, [*found.own, *taken], wanted)
    except BaseException:
        roll_back(work, out, kind)
        raise


def _holds_no_work(out: Path) -> bool:
    return not any(p.name.startswith(WORK_INSIDE) for p in out.iterdir())


def exchange(a: Path, b: Path) -> bool:
    """Swap two folders in one step; False where that cannot be done."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    done = libc.renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE)
    if done == 0:
        return True
    code = ctypes.get_errno()
    if code in _CANNOT:
        return False
    raise OSError(code, os.strerror(code))


def _replace_files(work: Path, out: Path, leaving: Sequence[str], coming: Sequence[str]) -> None:
    """Move files out, the seal first, and files in, the seal last."""
    write_whole(work / MOVING, json.dumps(list(coming)))
    for name in leaving:
        _move(name, out, work / OLD)
        _drop_empty_parents(name, out)
    for name in coming:
        _move(name, work / NEW, out)


def roll_back(work: Path, out: Path, kind: Kind) -> None:
    """Put back what was moved, unless all of it was: the new seal is in place then."""
    new, old = work / NEW, work / OLD
    if not (work / MOVING).is_file() or not (new / kind.seal).exists():
        return
    for name in json.loads((work / MOVING).read_text()):
        if not (new / name).exists() and (out / name).exists():
            _move(name, out, new)
            _drop_empty_parents(name, out)
    back = [p.relative_to(old).as_posix() for p in old.rglob("*") if p.is_file()]
    for name in sorted(back, key=lambda name: (name == kind.seal, name)):
        _move(name, old, out)


def _move(name: str, source: Path, target: Path) -> None:
    (target / name).parent.mkdir(parents=True, exist_ok=True)
    (source / name).rename(target / name)


def _drop_empty_parents(name: str, out: Path) -> None:
    for parent in (out / name).parents:
        if parent == out:
            return
        with suppress(OSError):  # it holds something else
            parent.rmdir()
