"""``--html``: one self-contained page with the tables and plots of a measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from strop.bench.pages.tables import TableRow, TextTable, absent, disturbances, latency, properties
from strop.bench.records.figures import Figure
from strop.bench.records.machine import machine
from strop.bench.records.record import DuelRecord
from strop.compiler.util.errors import UsageError


@dataclass(frozen=True)
class Plot:
    """An SVG with its heading."""

    title: str
    svg: str


def require_plotting() -> None:
    """Refuse a page before anything is measured for it.

    Raises:
        UsageError: a package for it is missing.
    """
    gone = [name for name in ("matplotlib", "jinja2") if find_spec(name) is None]
    if gone:
        raise UsageError(f"--html needs {', '.join(gone)}: pip install 'strop[bench]'")


@dataclass(frozen=True)
class Section:
    """Part of a page.

    Attributes:
        environment: where it was measured.
        how: a sentence on how.
        notes: engines that did not run, and disturbances.
    """

    title: str
    environment: Mapping[str, Any]
    how: str
    grids: Sequence[TextTable]
    plots: Sequence[Plot]
    notes: Sequence[str]

    @property
    def machine(self) -> str:
        """Where it was measured, in words."""
        return machine(self.environment)


def duel_section(record: DuelRecord, title: str) -> Section:
    """A duel: latency, fidelity, footprint, and both plots."""
    from strop.bench.pages import plots

    found = [Plot("Latency against fidelity", plots.pareto(record))]
    found += [Plot(f"Latency against {d}", s) for d, s in plots.latency_by_dim(record).items()]
    plan = record.plan
    how = (
        f"{plan.bouts} bouts of {plan.rounds} interleaved rounds, every engine in a process of its "
        f"own, started anew for each bout; inputs: {record.inputs}."
    )
    notes = [*absent(record), *disturbances(record)]
    grids = [latency(record), properties(record)]
    return Section(title, record.environment, how, grids, found, notes)


def build_section(
    title: str,
    environment: Mapping[str, Any],
    figures: Sequence[Figure],
    runs: Mapping[str, Mapping[str, Any]],
) -> Section:
    """A part of the build suite: its figures, and time and memory against depth if it has them."""
    from strop.bench.pages import plots

    rows = [
        TableRow([f.what, f"{f.value:.4g}", f.wanted, "" if f.hit else "missed"]) for f in figures
    ]
    grid = TextTable("figures", ("figure", "measured", "wanted", ""), rows)
    svg = plots.build_by_layers(runs) if runs else ""
    plot = Plot("Build time and memory against layers", svg)
    return Section(title, environment, "", [grid], [plot], [])


def page(title: str, sections: Sequence[Section]) -> str:
    """The page as HTML."""
    import jinja2

    loader = jinja2.PackageLoader("strop.bench.pages", "")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True)
    return environment.get_template("page.html.j2").render(title=title, sections=sections)
