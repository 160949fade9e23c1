"""strop's one cache folder: entries under a key, bounded in size, whole or not there.

``STROP_CACHE`` names the folder; by default it is where the system keeps caches. It can be deleted
at any time; what it held is then computed again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import platformdirs

from strop.compiler.util.errors import UsageError
from strop.compiler.util.ranks import rank

VARIABLE = "STROP_CACHE"
MOST_BYTES = 4 << 30
# What a killed process left is not in use any more after this many seconds.
_STALE = 24 * 3600
_UNFINISHED = ".unfinished-"
# Unfinished work may be resumed for this long.
_FORGOTTEN = 14 * 24 * 3600
_UNDER_WAY = ".under-way-"


def cache_root() -> Path:
    """The folder of all caches of strop's."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else platformdirs.user_cache_path("strop")


@dataclass(frozen=True)
class CacheEntry:
    """One entry.

    Attributes:
        key: under which it stands.
        bytes: what it takes.
        used: when it was used last, in seconds since the epoch.
    """

    key: str
    bytes: int
    used: float


class Cache:
    """Folders by key under a root; the ones not used for longest go first when it is full."""

    def __init__(self, root: Path, most_bytes: int = MOST_BYTES) -> None:
        self.root = root
        self.most_bytes = most_bytes

    def get(self, key: str) -> Path | None:
        """The folder of an entry, which counts as used now; None if there is none."""
        folder = self.root / key
        if not folder.is_dir():
            return None
        with contextlib.suppress(OSError):  # a cache that is read-only can still be read
            os.utime(folder)
        return folder

    def put(self, key: str, write: Callable[[Path], None]) -> None:
        """Make an entry, or replace one; it is there when all of it is written, and not before.

        Args:
            key: a file name.
            write: writes the files of the entry into an empty folder.

        Raises:
            UsageError: the folder cannot be written, or is full.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            work = self.root / f"{_UNFINISHED}{secrets.token_hex(8)}"
            work.mkdir()
        except OSError as error:
            raise UsageError(f"the cache {self.root} cannot be written: {error}") from error
        try:
            write(work)
            self.remove(key)
            work.rename(self.root / key)
        except OSError as error:
            raise UsageError(f"the cache {self.root} cannot be written: {error}") from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
        self._make_room(key)

    @contextmanager
    def under_way(self, key: str) -> Iterator[Path]:
        """A folder for work on an entry: kept if the block is left by an exception, else removed.

        The same key finds the same folder again. Of several processes that share the work, the
        first one holds and removes it.

        Raises:
            UsageError: the folder cannot be written, or another process works in it.
        """
        folder = self.root / f"{_UNDER_WAY}{key}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            os.utime(folder)
        except OSError as error:
            raise UsageError(f"the cache {self.root} cannot be written: {error}") from error
        if rank() > 0:
            yield folder
            return
        with _locked(folder):
            yield folder
            shutil.rmtree(folder, ignore_errors=True)

    def remove(self, key: str) -> None:
        """Remove an entry if it is there."""
        shutil.rmtree(self.root / key, ignore_errors=True)

    def entries(self) -> list[CacheEntry]:
        """All entries, the one used last first."""
        found = [_entry(p) for p in self._folders() if not p.name.startswith(".")]
        return sorted(found, key=lambda e: -e.used)

    def interrupted(self) -> list[CacheEntry]:
        """What work on entries has kept so far, by the entry's key."""
        found = [_entry(p) for p in self._folders() if p.name.startswith(_UNDER_WAY)]
        return [replace(e, key=e.key.removeprefix(_UNDER_WAY)) for e in found]

    def clear(self) -> None:
        """Remove all entries, and what killed processes left."""
        for folder in self._folders():
            shutil.rmtree(folder, ignore_errors=True)

    def _folders(self) -> list[Path]:
        return [p for p in self.root.iterdir() if p.is_dir()] if self.root.is_dir() else []

    def _make_room(self, newest: str) -> None:
        """Remove what is stale, and the entries used longest ago beyond the bound."""
        for folder in self._folders():
            name, age = folder.name, _age(folder)
            stale = name.startswith(_UNFINISHED) and age > _STALE
            if stale or (name.startswith(_UNDER_WAY) and age > _FORGOTTEN):
                shutil.rmtree(folder, ignore_errors=True)
        taken = 0
        for entry in self.entries():
            taken += entry.bytes
            if taken > self.most_bytes and entry.key != newest:
                self.remove(entry.key)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder against other processes; the system lets go of it if this one is killed.

    Raises:
        UsageError: another one holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"another process works in {folder}") from error
        yield
    finally:
        os.close(descriptor)


def _age(folder: Path) -> float:
    return time.time() - folder.stat().st_mtime


def _entry(folder: Path) -> CacheEntry:
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    return CacheEntry(folder.name, size, folder.stat().st_mtime)
