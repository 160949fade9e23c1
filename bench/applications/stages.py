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
    """Quality, speed and size, a row for each stage."""
    first = stages[0]
    tasks = list(first.milliseconds or {})
    made = Table("stage", *first.quality, *(f"ms, {task}" for task in tasks), "MB", title=title)
    for column in made.columns:
        column.no_wrap = True
    for stage in stages:
        timed = [_timed(stage, first, task) for task in tasks]
        size = "" if stage.megabytes is None else f"{stage.megabytes:.2f}"
        made.add_row(stage.name, *(f"{v:.2f}" for v in stage.quality.values()), *timed, size)
    return made


def figures(stages: Sequence[Stage]) -> list[Figure]:
    """Every quality, and how many times faster and smaller than the first stage each other is."""
    first = stages[0]
    made = [Figure(f"{n}, {stage.name}", v) for stage in stages for n, v in stage.quality.items()]
    for stage in stages[1:]:
        for task, milliseconds in (stage.milliseconds or {}).items():
            assert first.milliseconds is not None
            faster = first.milliseconds[task] / milliseconds
            made.append(Figure(f"speed, {task}, {stage.name} over {first.name}", faster))
        if stage.megabytes is not None and first.megabytes is not None:
            share = stage.megabytes / first.megabytes
            made.append(Figure(f"size, {stage.name}, share of {first.name}", share))
    return made


def _timed(stage: Stage, first: Stage, task: str) -> str:
    if stage.milliseconds is None or first.milliseconds is None:
        return ""
    took = stage.milliseconds[task]
    return f"{took:.3g} ({first.milliseconds[task] / took:.2f}×)"
