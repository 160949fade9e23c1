"""The stages of an application: how good and how fast the model is after each of them."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from strop.bench.pages.tables import TableRow, TextTable
from strop.bench.records.figures import Figure, console, save
from strop.bench.records.machine import environment
from strop.bench.records.record import ratios

TORCH = "torch"
"""The name of the first stage: the original in eager torch."""
Out = Annotated[Path | None, typer.Option("-o", "--out", help="Keep the artifacts in this folder.")]


@contextmanager
def folder_for(out: Path | None) -> Iterator[Path]:
    """The folder that the user named, or one that is removed at the end."""
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="strop-bench-") as folder:
        yield Path(folder)


@dataclass(frozen=True)
class Stage:
    """A model on its way.

    Attributes:
        name: what was done last.
        quality: scores by name, with their unit.
        rounds: by task, the milliseconds of each round, the same rounds for all stages; None where
            it was not timed.
        megabytes: of its files; None where it has none.
    """

    name: str
    quality: Mapping[str, float]
    rounds: Mapping[str, Sequence[float]] | None = None
    megabytes: float | None = None

    def milliseconds(self, task: str) -> float | None:
        """The median of the rounds."""
        return statistics.median(self.rounds[task]) if self.rounds else None

    def faster(self, other: Stage, task: str) -> float | None:
        """How many times as fast as another stage: the median of the ratios, round by round."""
        if not self.rounds or not other.rounds:
            return None
        return statistics.median(ratios([other.rounds[task]], [self.rounds[task]]))


def report(name: str, title: str, stages: Sequence[Stage], results: Path, **measured: Any) -> None:
    """Print the table of an application, and write its record.

    Args:
        name: of the record.
        title: of the table.
        stages: in order; the speed of the first one is 1.
        results: folder for the record.
        measured: what else is recorded.
    """
    console.print(table(title, stages).rich())
    rows = [vars(stage) for stage in stages]
    save(
        name, environment(), figures(stages), {"title": title, **measured, "stages": rows}, results
    )


def table(title: str, stages: Sequence[Stage]) -> TextTable:
    """Quality, speed and size, a column for each stage."""
    first, heads = stages[0], ["", *(stage.name.replace("-", " ") for stage in stages)]
    lines = [[name, *(f"{one.quality[name]:.4g}" for one in stages)] for name in first.quality]
    for task in first.rounds or {}:
        lines.append([f"ms, {task}", *(_shown(one.milliseconds(task)) for one in stages)])
        lines.append(["times as fast", *(_shown(one.faster(first, task)) for one in stages)])
    lines.append(["MB", *(_shown(one.megabytes) for one in stages)])
    return TextTable(title, heads, [TableRow(line) for line in lines], len(heads))


def _shown(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def figures(stages: Sequence[Stage]) -> list[Figure]:
    """What comes out at the end: its quality and its speed beside those of the first stage."""
    first, last = stages[0], stages[-1]
    made = [
        Figure(f"{n}, {one.name}", one.quality[n]) for n in first.quality for one in (first, last)
    ]
    for task in first.rounds or {}:
        faster = last.faster(first, task)
        assert faster is not None
        made.append(Figure(f"speed, {task}, {last.name} over {first.name}", faster))
    return made


def recorded(saved: Mapping[str, Any]) -> TextTable:
    """The table of an application on record."""
    measured = saved["measured"]
    return table(measured["title"], [Stage(**values) for values in measured["stages"]])
