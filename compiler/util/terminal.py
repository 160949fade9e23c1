"""The only module that writes to a terminal; it makes text from outside harmless.

Names of values, notes, paths and messages come from users, models and files. They are shown as
they are: ``[/red]`` is no markup and ``:a:`` no emoji, and control characters are shown as
escapes. Other modules take rich's classes from here, ``shown`` and
``moving`` only.
"""

from __future__ import annotations

import sys
from typing import Any, TextIO

import rich.console
import rich.table

from strop.compiler.util.shown import shown
from strop.compiler.util.visible import visible


def write(text: str) -> None:
    """Write text to standard output as it is, without wrapping; for other programs to read."""
    sys.stdout.write(visible(text, lines=True))


def _safe(part: Any) -> Any:
    """What rich would take for markup as text; anything else as it is."""
    return shown(part) if isinstance(part, str) else part


class Console(rich.console.Console):
    """A terminal: standard output, standard error, or a stream.

    Text is no markup and is not coloured by what it looks like.
    """

    def __init__(self, *, stderr: bool = False, file: TextIO | None = None) -> None:
        super().__init__(stderr=stderr, file=file, markup=False, emoji=False, highlight=False)

    def print(self, *parts: Any, **options: Any) -> None:
        """Print text, or what rich can print."""
        made = (p if isinstance(p, rich.console.ConsoleRenderable) else shown(p) for p in parts)
        super().print(*made, **options)

    def say(self, text: object, style: str = "") -> None:
        """Print text without wrapping it: it may be searched for, and holds paths."""
        self.print(text, style=style or None, soft_wrap=True)

    def status(self, status: Any, **options: Any) -> Any:
        """A line that moves for the length of a block."""
        from strop.compiler.util.moving import Status

        return Status(_safe(status), console=self, **options)

    def rule(self, title: Any = "", **options: Any) -> None:
        """A line across the terminal with a title in it."""
        super().rule(_safe(title), **options)


class Table(rich.table.Table):
    """A table whose title, heads and cells are plain text, or made by ``shown``."""

    def __init__(self, *heads: str, title: str = "", caption: str = "") -> None:
        super().__init__(
            *heads,
            title=shown(title) if title else None,
            caption=shown(caption) if caption else None,
            title_justify="left",
        )

    def add_column(self, header: Any = "", *rest: Any, **options: Any) -> None:
        """One more column."""
        super().add_column(_safe(header), *rest, **options)

    def add_row(self, *cells: Any, **options: Any) -> None:
        """One more row."""
        super().add_row(*map(_safe, cells), **options)
