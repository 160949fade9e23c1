"""How far the median ratios of one and the same duel differ from run to run.

``python -m strop.bench.measures.repeatability`` compares MiniLM with the exported file three times.
A run counts if the machine was quiet in it; one that was not is repeated, and stays on record.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from strop.bench.harness.duel import duel
from strop.bench.harness.listener import Listener
from strop.bench.harness.setup import DuelSetup
from strop.bench.pages.tables import TableRow, TextTable, disturbances
from strop.bench.records.figures import RESULTS, Figure, ResultsFolder, console, show_and_save
from strop.bench.records.machine import environment
from strop.bench.records.metrics import median_speedup
from strop.bench.records.record import DuelRecord, Plan, is_calm
from strop.bench.suites import encoders
from strop.compiler.util.errors import BudgetError

AGREE = 0.05
Speedups = Mapping[tuple[str, str], Sequence[float]]
"""By artifact and case: the median ratio over the baseline in each run."""


def run(recipes: Sequence[str], plan: Plan, times: int) -> list[DuelRecord]:
    """Build once, then run the duel until so many runs were quiet, or twice as often.

    Every run exports the peer and starts its own processes. The runs that were not quiet are among
    the records.
    """
    from strop.bench.models.minilm import make
    from strop.compiler import build

    with tempfile.TemporaryDirectory(prefix="strop-bench-") as folder:
        artifacts = {encoders.subject(r): build(make(), Path(folder) / r, r) for r in recipes}
        setup = DuelSetup(artifacts, encoders.SOURCE, [encoders.BASELINE], encoders.SIZES, plan)
        records: list[DuelRecord] = []
        with console.status("") as status:
            while len(quiet(records)) < times and len(records) < 2 * times:
                status.update(f"run {len(records) + 1}")
                records.append(duel(setup, Listener()))
        return records


def quiet(records: Sequence[DuelRecord]) -> list[DuelRecord]:
    """Those in which the machine was calm, by the best that the canary took in any of them."""
    threads = records[0].plan.threads[0] if records else 1
    best = min((r.canary_best(threads) for r in records), default=0.0)
    return [r for r in records if r.quiet and is_calm(r.canary_best(threads), best)]


def speedups(records: Sequence[DuelRecord]) -> Speedups:
    """Of all artifacts in all cases."""
    return {
        (name, case.label): [
            median_speedup(record.cases[i], name, encoders.BASELINE) for record in records
        ]
        for name in records[0].subjects
        for i, case in enumerate(records[0].cases)
    }


def apart(ratios: Sequence[float]) -> float:
    """The largest of some ratios over the smallest, less one."""
    return max(ratios) / min(ratios) - 1


def table(found: Speedups, runs: int) -> TextTable:
    """A row for each artifact and case, a column for each run."""
    heads = ("artifact", "case", *(f"run {i + 1}" for i in range(runs)), "apart")
    rows = [
        TableRow([*key, *(f"{r:.3f}" for r in of), f"{apart(of):.1%}"]) for key, of in found.items()
    ]
    return TextTable(f"times faster than {encoders.BASELINE}", heads, rows, 2)


def main(
    recipe: Annotated[list[str] | None, typer.Option(help="A recipe; repeatable.")] = None,
    runs: Annotated[int, typer.Option(min=2, help="How often the duel is run.")] = 3,
    patience: Annotated[float, typer.Option(help="Seconds a bout may wait for calm.")] = 60,
    results: ResultsFolder = RESULTS,
) -> None:
    """Run the same duel several times, and see how far apart its median ratios are."""
    place = environment()
    plan = Plan(threads=[os.cpu_count() or 1], patience=patience)
    records = run(recipe or list(encoders.SPEED), plan, runs)
    counted = quiet(records)
    if len(counted) < runs:
        console.print(
            f"The machine was quiet in {len(counted)} of {len(records)} runs, and {runs} are "
            "needed: there is no figure. Try again later."
        )
        raise typer.Exit(BudgetError.exit_code)
    found = speedups(counted)
    console.print(table(found, runs).rich())
    for record in records:
        for sentence in disturbances(record):
            console.print(sentence)
    worst, left_out = max(map(apart, found.values())), len(records) - len(counted)
    figures = [
        Figure(f"same duel {runs} times: ratios apart", worst, at_most=AGREE),
        Figure("runs in which the machine was not quiet, not counted", left_out),
    ]
    measured = {"records": [record.model_dump() for record in records]}
    show_and_save("repeatability", "repeatability", place, figures, measured, results)


if __name__ == "__main__":
    typer.run(main)
