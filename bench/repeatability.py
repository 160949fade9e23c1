"""How far the median ratios of one and the same duel differ from run to run.

``python -m strop.bench.repeatability`` runs MiniLM's against the exported file three times.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from strop.bench import encoders
from strop.bench.duel import Challenge, prepared
from strop.bench.figures import RESULTS, Figure, console, save, show
from strop.bench.listener import Listener
from strop.bench.machine import environment
from strop.bench.metrics import median_speedup
from strop.bench.record import Plan, Record
from strop.bench.tables import Grid, Row, disturbances

AGREE = 0.05


def run(recipes: Sequence[str], plan: Plan, times: int) -> list[Record]:
    """Build and export once, then race that often; every race starts its own processes."""
    from strop.bench.minilm import make
    from strop.compiler import build

    with tempfile.TemporaryDirectory(prefix="strop-bench-") as folder:
        artifacts = {encoders.subject(r): build(make(), Path(folder) / r, r) for r in recipes}
        challenge = Challenge(artifacts, encoders.SOURCE, [encoders.BASELINE], encoders.SIZES, plan)
        records = []
        for _ in track(range(times), "racing", console=console, transient=True):
            with prepared(challenge, Listener()) as ring:
                records.append(ring.fight(Listener()))
        return records


def speedups(records: Sequence[Record]) -> dict[tuple[str, str], list[float]]:
    """By artifact and case: the median ratio over the baseline in each run."""
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


def main(
    recipe: Annotated[list[str] | None, typer.Option(help="A recipe; repeatable.")] = None,
    runs: Annotated[int, typer.Option(min=2, help="How often the duel is run.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds in a bout.")] = 7,
    bouts: Annotated[int, typer.Option(min=1, help="Restarts of all engines.")] = 3,
    turn: Annotated[float, typer.Option(help="Seconds of a turn.")] = 0.2,
    patience: Annotated[float, typer.Option(help="Seconds a bout may wait for calm.")] = 30,
    results: Annotated[Path, typer.Option(help="Folder for the JSON.")] = RESULTS,
) -> None:
    """Run the same duel several times and see how far apart its median ratios are."""
    place = environment()
    threads = [os.cpu_count() or 1]
    plan = Plan(threads=threads, bouts=bouts, rounds=rounds, turn_seconds=turn, patience=patience)
    records = run(recipe or list(encoders.SPEED), plan, runs)
    found = speedups(records)
    heads = ("artifact", "case", *(f"run {i + 1}" for i in range(runs)), "apart")
    rows = [Row([*key, *(f"{r:.3f}" for r in of), f"{apart(of):.1%}"]) for key, of in found.items()]
    console.print(Grid(f"times faster than {encoders.BASELINE}", heads, rows).rich())
    for record in records:
        for sentence in disturbances(record):
            console.print(sentence, highlight=False)
    worst = max(map(apart, found.values()))
    figures = [Figure(f"same duel {runs} times: ratios apart", worst, at_most=AGREE)]
    show(figures, "repeatability")
    measured = {"records": [record.model_dump() for record in records]}
    save("repeatability", place, figures, measured, results)


if __name__ == "__main__":
    typer.run(main)
