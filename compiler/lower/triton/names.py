"""Names that are given once."""

from __future__ import annotations


class Names:
    """Remembers the names that it gave."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def unique(self, name: str) -> str:
        """The name, or with the first free number behind it."""
        count = 0
        while (unique := f"{name}.{count}" if count else name) in self._taken:
            count += 1
        self._taken.add(unique)
        return unique
