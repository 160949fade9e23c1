"""Figures: the numbers that a benchmark states, with their bounds, on the screen and on record."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from strop.compiler.util.files.writing import write_whole
from strop.compiler.util.shown import shown
from strop.compiler.util.terminal import Console, Table

RESULTS = Path(__file__).parents[1] / "results"
ResultsFolder = Annotated[Path, typer.Option(help="Folder for the record.")]
console = Console()


@dataclass(frozen=True)
class Figure:
    """One number, and the bound that it must meet.

    Attributes:
        what: the figure in words, with its unit.
        value: what was measured.
        at_least: the lower bound; None for no bound.
        at_most: the upper bound; None for no bound.
    """

    what: str
    value: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def hit(self) -> bool:
        """Whether the value meets its bounds; NaN meets no bound."""
        low = self.at_least is None or self.value >= self.at_least
        return low and (self.at_most is None or self.value <= self.at_most)

    @property
    def wanted(self) -> str:
        """The bound in words; empty if there is none."""
        if self.at_least is not None:
            return f"≥ {self.at_least:g}"
        return "" if self.at_most is None else f"≤ {self.at_most:g}"


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of a sample, in the sample's unit."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(sample: Sequence[float]) -> Spread:
        """Median, first and third quartile; a sample of one is its own quartiles."""
        if len(sample) == 1:
            return Spread(sample[0], sample[0], sample[0])
        low, middle, high = statistics.quantiles(sample, n=4, method="inclusive")
        return Spread(middle, low, high)

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g}–{self.high:.3g})"


def save(
    name: str, environment: dict[str, Any], figures: Sequence[Figure], measured: Any, folder: Path
) -> Path:
    """Write the record of one benchmark as JSON; returns the file.

    Args:
        name: of the benchmark and of the file.
        environment: the machine and the versions.
        figures: what is stated, with bounds.
        measured: everything that was measured, as JSON.
        folder: where records are kept; made if it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    values = {
        "name": name,
        "environment": environment,
        "figures": [asdict(f) | {"hit": f.hit} for f in figures],
        "measured": measured,
    }
    write_whole(path, json.dumps(values, indent=2, allow_nan=False) + "\n")
    return path


def figures_of(saved: Mapping[str, Any]) -> list[Figure]:
    """The figures of what ``save`` wrote."""
    return [Figure(f["what"], f["value"], f["at_least"], f["at_most"]) for f in saved["figures"]]


def show(figures: Sequence[Figure], title: str) -> None:
    """Print figures against their bounds."""
    table = Table("figure", "value", "wanted", "", title=title)
    for figure in figures:
        verdict = shown("hit", "green") if figure.hit else shown("MISS", "bold red")
        bound = figure.wanted
        table.add_row(figure.what, f"{figure.value:.4g}", bound, verdict if bound else "")
    console.print(table)


def show_and_save(
    name: str,
    title: str,
    environment: dict[str, Any],
    figures: Sequence[Figure],
    measured: Any,
    folder: Path,
) -> None:
    """The end of a benchmark: print its figures under a title, and write its record."""
    show(figures, title)
    save(name, environment, figures, measured, folder)


def results() -> list[dict[str, Any]]:
    """Every benchmark on record that has figures, in the order of the file names."""
    found = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    return [r for r in found if isinstance(r, dict) and r.get("figures")]


def show_results() -> None:
    """Print every figure on record."""
    for saved in results():
        show(figures_of(saved), f"{saved['name']}: {saved['environment']['cpu']}")
