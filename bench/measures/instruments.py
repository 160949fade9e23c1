"""What the instruments cost: MiniLM built with and without them.

``python -m strop.bench.measures.instruments``; every build runs in a new process, and builds of
both kinds alternate.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from strop.bench.processes.spawned import isolated
from strop.bench.records.figures import (
    RESULTS,
    Figure,
    ResultsFolder,
    Spread,
    console,
    show_and_save,
)
from strop.bench.records.machine import environment
from strop.compiler.util.terminal import Table

Mode = Literal["off", "cheap"]
MODES: tuple[Mode, Mode] = ("off", "cheap")
MOST = 1.15
# Seconds after which a build is given up.
TIMEOUT = 600.0
Run = Mapping[str, Any]


def measure(mode: Mode, recipe: str) -> Run:
    """Seconds of one build in this process, after a small build has imported everything."""
    from strop.bench.models.llama import SMALL, model
    from strop.bench.models.minilm import make
    from strop.compiler import build

    with tempfile.TemporaryDirectory() as folder:
        build(model(1, SMALL), Path(folder) / "warm-up", recipe)
        made = make()
        start = time.perf_counter()
        artifact = build(made, Path(folder) / "artifact", recipe, instruments=mode)
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "stages": artifact.build_record()["seconds"]}


def alternate(rounds: int, recipe: str) -> dict[Mode, list[Run]]:
    """Runs by mode; the mode that begins changes from round to round."""
    runs: dict[Mode, list[Run]] = {mode: [] for mode in MODES}
    with console.status("") as status:
        for number in range(rounds):
            for mode in MODES if number % 2 == 0 else reversed(MODES):
                status.update(f"round {number + 1} of {rounds}: {mode}")
                runs[mode].append(isolated(measure, mode, recipe, timeout=TIMEOUT))
    return runs


def ratios(runs: Mapping[Mode, Sequence[Run]]) -> dict[Mode, Spread]:
    """Time over that without instruments, round by round."""
    pairs = {mode: zip(runs[mode], runs["off"]) for mode in MODES}
    return {m: Spread.of([a["seconds"] / b["seconds"] for a, b in pairs[m]]) for m in MODES}


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Builds of each kind.")] = 7,
    recipe: Annotated[str, typer.Option(help="The recipe to build with.")] = "cpu-fp32",
    results: ResultsFolder = RESULTS,
) -> None:
    """Build MiniLM with instruments off and cheap; compare the extra time with a bound."""
    place = environment()
    runs = alternate(rounds, recipe)
    over_off = ratios(runs)
    table = Table("instruments", "seconds", "of off")
    for mode in MODES:
        seconds = Spread.of([run["seconds"] for run in runs[mode]])
        table.add_row(mode, str(seconds), str(over_off[mode]))
    console.print(table)
    figures = [Figure("instruments: cheap / off", over_off["cheap"].median, at_most=MOST)]
    measured = {"recipe": recipe, "runs": runs}
    title = f"building MiniLM, recipe {recipe}"
    show_and_save("instruments", title, place, figures, measured, results)


if __name__ == "__main__":
    typer.run(main)
