"""What is told of a training under way: how far it has come, and how long it will still take."""

from __future__ import annotations

import time
from collections.abc import Callable

_SECONDS_BETWEEN = 0.5


class Status:
    """Tells now and then how far training has come."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._told = 0.0
        self._first: tuple[float, float] | None = None

    def update(self, updates: int, share: float, loss: float | None) -> None:
        """Tell of the last update.

        Args:
            updates: made so far.
            share: of the training that is done.
            loss: the mean since the last validation.
        """
        now = time.monotonic()
        if self._first is None:
            self._first = (now, share)
        if now - self._told < _SECONDS_BETWEEN:
            return
        self._told = now
        said = f"training: update {updates}, {min(share, 1.0):.0%}"
        if loss is not None:
            said += f", loss {loss:.4g}"
        self._tell(said + self._left(now, share))

    def _left(self, now: float, share: float) -> str:
        """How long the rest takes at the speed since this run began."""
        assert self._first is not None
        began, from_share = self._first
        if share <= from_share:
            return ""
        return f", {duration((now - began) / (share - from_share) * (1 - share))} left"


def duration(seconds: float) -> str:
    """Seconds as people say them: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 60:
        return f"{max(seconds, 0):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
