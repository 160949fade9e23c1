"""The stages of an application: how good and how fast the model is after each of them."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from strop.bench.records.figures import Figure, console, save
from strop.bench.records.machine import environment
from strop.compiler.util.terminal import Table

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
        milliseconds: how long it takes for each measured task; none where it was not timed.
        megabytes: of its files; None where it has none.
    """

    name: str
    quality: Mapping[str, float]
    milliseconds: Mapping[str, float] | None = None
    megabytes: float | None = None


def interleaved(calls: Mapping[str, Callable[[], object]], rounds: int = 15) -> dict[str, float]:
    """Median milliseconds of each call, where all take turns; one turn before does not count."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 1):
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            times[name].append(1000 * (time.perf_counter() - begun))
    return {name: statistics.median(found[1:]) for name, found in times.items()}


def report(name: str, title: str, stages: Sequence[Stage], results: Path, **measured: Any) -> None:
    """Print the table of an application, and write its record.

    Args:
        name: of the record.
        title: of the table.
        stages: in order; the speed of the first one is 1.
        results: folder for the record.
        measured: what else is recorded.
    """
    console.print(table(title, stages))
    rows = [vars(stage) for stage in stages]
    save(name, environment(), figures(stages), {**measured, "stages": rows}, results)


def table(title: str, stages: Sequence[Stage]) -> Table:
    """Quality, speed and size, a column for each stage."""
    first, heads = stages[0], [stage.name.replace("-", " ") for stage in stages]
    made = Table("", *heads, title=title)
    for name in first.quality:
        made.add_row(name, *(f"{stage.quality[name]:.4g}" for stage in stages))
    for task, most in (first.milliseconds or {}).items():
        taken = [stage.milliseconds[task] if stage.milliseconds else None for stage in stages]
        made.add_row(f"ms, {task}", *map(_shown, taken))
        made.add_row("times as fast", *(_shown(most / one if one else None) for one in taken))
    made.add_row("MB", *(_shown(stage.megabytes) for stage in stages))
    return made


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def figures(stages: Sequence[Stage]) -> list[Figure]:
    """Every quality; how many times faster than the first stage the others are; and their size."""
    first = stages[0]
    made = [Figure(f"{n}, {stage.name}", v) for stage in stages for n, v in stage.quality.items()]
    for stage in stages[1:]:
        for task, milliseconds in (stage.milliseconds or {}).items():
            assert first.milliseconds is not None
            faster = first.milliseconds[task] / milliseconds
            made.append(Figure(f"speed, {task}, {stage.name} over {first.name}", faster))
    sized = [(stage.name, stage.megabytes) for stage in stages if stage.megabytes is not None]
    for name, megabytes in sized[1:]:
        share = megabytes / sized[0][1]
        made.append(Figure(f"size, {name}, share of {sized[0][0]}", share))
    return made
