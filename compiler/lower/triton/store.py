"""Compiled kernels in strop's cache folder, so that later builds need not compile them."""

from __future__ import annotations

import warnings
from pathlib import Path

from strop.compiler.util.cache import Cache, cache_root
from strop.compiler.util.errors import UsageError

# A kernel takes about 300 kB, and a model has about 50.
_MOST_BYTES = 512 << 20
_FILE = "kernel"


def kernel_cache() -> Cache:
    """The kernels that were compiled on this machine."""
    return Cache(cache_root() / "kernels", _MOST_BYTES)


class KernelStore:
    """Keeps kernels in a cache; without one that can be written, it says so once."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._works = True

    def get(self, key: str) -> bytes | None:
        """What was put there, or None."""
        folder = self._cache.get(key)
        try:
            return None if folder is None else (folder / _FILE).read_bytes()
        except OSError:  # another process has removed it since, or it was damaged
            return None

    def put(self, key: str, content: bytes) -> None:
        """Keep it."""

        def write(folder: Path) -> None:
            (folder / _FILE).write_bytes(content)

        try:
            if self._works:
                self._cache.put(key, write)
        except UsageError as error:
            self._works = False
            warnings.warn(f"compiled kernels are not kept: {error}", RuntimeWarning, stacklevel=2)
