"""What in a folder is strop's own: the files that its manifest names, and no others.

All other files there belong to the user. They are never moved, changed or deleted.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from strop.compiler.util.errors import UsageError

# Folders in which an artifact is written, inside the one where it will stand.
WORK_INSIDE = ".strop-"


@dataclass(frozen=True)
class Kind:
    """A kind of folder that strop writes.

    Attributes:
        title: what such a folder is, for messages.
        seal: the file that makes it one; removed first, written last.
        named: the files that a folder names as its own, the seal among them, as paths inside it
            with ``/``; None where the folder is not of this kind.
        advice: what to do where something else is in the way.
    """

    title: str
    seal: str
    named: Callable[[Path], Collection[str] | None]
    advice: str


@dataclass
class Holdings:
    """What a folder holds.

    Attributes:
        own: strop's own files, as paths inside the folder, the seal first.
        foreign: everything else; a folder without any file of strop's is one entry.
        is_kind: whether the folder is of the kind that was asked for.
    """

    own: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    is_kind: bool = False


def holdings(folder: Path, kind: Kind) -> Holdings:
    """Look through a folder.

    Only what is found while walking is held against the names of the manifest, and only regular
    files count: a name such as ``../x``, or one that stands for a link, is nothing of strop's.
    """
    names = kind.named(folder)
    found = Holdings(is_kind=names is not None)
    parents = {str(p) for name in names or () for p in PurePosixPath(name).parents}
    for name, entry in _entries(folder, parents, ""):
        is_own = name in (names or ()) and entry.is_file(follow_symlinks=False)
        (found.own if is_own else found.foreign).append(name)
    found.own.sort(key=lambda name: (name != kind.seal, name))
    found.foreign.sort()
    return found


def _entries(
    folder: Path, parents: Collection[str], prefix: str
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """What is in a folder, down to where nothing is named; workspaces are left out."""
    with os.scandir(folder) as entries:
        for entry in entries:
            name = prefix + entry.name
            is_folder = entry.is_dir(follow_symlinks=False)
            if is_folder and name in parents:
                yield from _entries(Path(entry.path), parents, f"{name}/")
            elif not (is_folder and name.startswith(WORK_INSIDE)):
                yield name, entry


def require_replaceable(
    out: Path, wanted: Collection[str], own: Collection[str], kind: Kind, force: bool
) -> None:
    """Refuse to write over a file of the user.

    Args:
        out: the folder to write into.
        wanted: the files to write, as paths inside it.
        own: those there that are strop's.
        kind: what is written.
        force: regular files that are not strop's may be replaced.

    Raises:
        UsageError: a path is taken.
    """
    for name in sorted(set(wanted) - set(own)):
        for parent in PurePosixPath(name).parents:
            if os.path.lexists(out / parent) and not _is(stat.S_ISDIR, out / parent):
                raise UsageError(f"{out} holds '{parent}', where a folder must be; move it away")
        if not os.path.lexists(out / name):
            continue
        if not _is(stat.S_ISREG, out / name):
            raise UsageError(f"{out} holds '{name}', which is not a regular file; move it away")
        if not force:
            raise UsageError(
                f"{out} holds '{name}', which is not strop's and would be replaced. {kind.advice}"
            )


def _is(of_kind: Callable[[int], bool], path: Path) -> bool:
    return of_kind(path.lstat().st_mode)
