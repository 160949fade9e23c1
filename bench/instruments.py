"""What the instruments cost: MiniLM built with and without them, in turns, each in a new process.

``python -m strop.bench.instruments``
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from strop.bench.figures import RESULTS, Figure, Spread, console, save, show
from strop.bench.launch import measured_apart
from strop.bench.machine import environment
from strop.compiler.util.terminal import Table

MODES = ("off", "cheap")
MOST = 1.15


def measure(mode: str, recipe: str) -> dict[str, Any]:
    """Seconds of one build in this process, after everything was imported by a small one."""
    from strop.bench.llama import SMALL, model
    from strop.bench.minilm import make
    from strop.compiler import build

    with tempfile.TemporaryDirectory() as folder:
        build(model(1, SMALL), Path(folder) / "warm-up", recipe)
        made = make()
        start = time.perf_counter()
        artifact = build(made, Path(folder) / "artifact", recipe, instruments=mode)  # type: ignore[arg-type]
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "stages": artifact.build_record()["seconds"]}


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Builds of each kind.")] = 7,
    recipe: Annotated[str, typer.Option(help="The recipe to build with.")] = "cpu-fp32",
    results: Annotated[Path, typer.Option(help="Folder for the JSON.")] = RESULTS,
    one: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Build MiniLM with instruments off and cheap; compare the extra time with a bound."""
    if one:
        sys.stdout.write(json.dumps(measure(one, recipe)))
        return
    place = environment()
    runs: dict[str, list[dict[str, Any]]] = {mode: [] for mode in MODES}
    with console.status("") as status:
        for turn in range(rounds):
            for mode in MODES[turn % 2 :] + MODES[: turn % 2]:
                status.update(f"round {turn + 1} of {rounds}: {mode}")
                options = ("--one", mode, "--recipe", recipe)
                runs[mode].append(measured_apart("strop.bench.instruments", *options))
    seconds = {mode: [r["seconds"] for r in runs[mode]] for mode in MODES}
    ratios = {m: Spread.of([a / b for a, b in zip(seconds[m], seconds["off"])]) for m in MODES}
    table = Table("instruments", "seconds", "of off")
    for mode in MODES:
        table.add_row(mode, str(Spread.of(seconds[mode])), str(ratios[mode]))
    console.print(table)
    figures = [Figure("instruments: cheap / off", ratios["cheap"].median, at_most=MOST)]
    show(figures, f"building MiniLM, recipe {recipe}")
    save("instruments", place, figures, {"recipe": recipe, "runs": runs}, results)


if __name__ == "__main__":
    typer.run(main)
