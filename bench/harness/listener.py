"""The progress of a benchmark, on standard error where that is a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from strop.compiler.util.moving import Progress
from strop.compiler.util.terminal import Console


class Listener:
    """Is told of the progress; this one shows nothing."""

    def stage(self, what: str) -> None:
        """A stage begins."""

    def share(self, done: float) -> None:
        """This share of the rounds is done, 0 to 1."""


class _Bar(Listener):
    def __init__(self, progress: Progress) -> None:
        self._progress, self._task = progress, progress.add_task("starting", total=None)

    def stage(self, what: str) -> None:
        self._progress.update(self._task, description=what)

    def share(self, done: float) -> None:
        self._progress.update(self._task, total=1.0, completed=done)


@contextmanager
def listening() -> Iterator[Listener]:
    """A line with the stage and a bar, gone at the end of the block."""
    # Drawn seldom: it shares the cores with what is measured.
    console = Console(stderr=True)
    with Progress(console=console, transient=True, refresh_per_second=1) as progress:
        yield _Bar(progress)
