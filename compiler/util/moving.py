"""Lines that move on a terminal while something takes long; loaded only where there are some."""

from __future__ import annotations

from typing import Any

import rich.progress
import rich.status

from strop.compiler.util.shown import shown
from strop.compiler.util.visible import visible


class Status(rich.status.Status):
    """A line that moves while something takes long."""

    def update(self, status: Any = None, **options: Any) -> None:
        """Change the line."""
        super().update(shown(status) if isinstance(status, str) else status, **options)


class Progress(rich.progress.Progress):
    """A line with what is done, a bar and the time it has taken."""

    @classmethod
    def get_default_columns(cls) -> tuple[rich.progress.ProgressColumn, ...]:
        """The parts of the line."""
        text = rich.progress.TextColumn("{task.description}", markup=False)
        return (text, rich.progress.BarColumn(), rich.progress.TimeElapsedColumn())

    def add_task(self, description: str, *rest: Any, **options: Any) -> rich.progress.TaskID:
        """One more line."""
        return super().add_task(visible(description), *rest, **options)

    def update(self, task_id: rich.progress.TaskID, **options: Any) -> None:
        """Change a line."""
        if "description" in options:
            options["description"] = visible(options["description"])
        super().update(task_id, **options)
