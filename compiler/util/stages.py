"""The stages of a build: their times, and a callback when one begins."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from strop.compiler.util import interrupts

Progress = Callable[[str], None]


@dataclass
class Stages:
    """Wall time of every stage by name; ``progress`` is called with each name as it begins.

    A stage that comes twice is one, of the time of both.
    """

    progress: Progress = lambda stage: None
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one stage; a signal that the one before swallowed ends the build here."""
        interrupts.check()
        self.progress(name)
        start = time.perf_counter()
        try:
            yield
        finally:
            took = self.seconds.get(name, 0.0) + time.perf_counter() - start
            self.seconds[name] = round(took, 4)
