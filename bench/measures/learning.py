"""What a pass that trains costs the second time: in another build, and in a bisection.

``python -m strop.bench.measures.learning [--seconds 60]`` builds a model with a pass that trains
for a minute, builds it again with another pass behind it, and bisects the same recipe. Each runs
through the command line, in a process of its own.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from strop.bench.models import sources
from strop.bench.processes.launch import run_strop
from strop.bench.records.figures import RESULTS, Figure, ResultsFolder, console, show_and_save
from strop.bench.records.machine import environment

MODEL = Path(sources.__file__).with_name("trained.py")
TRAIN = ("--pass", f"{MODEL.name}:Train", "--before", "norms")
SOURCE = f"{MODEL.name}:make"
# What is run, by what it is called in the record.
STEPS: Mapping[str, tuple[str, ...]] = {
    "first": ("build", SOURCE, "-o", "a", *TRAIN),
    "second": ("build", SOURCE, "-o", "b", "--recipe", "cpu-int8", *TRAIN),
    "bisection": ("debug", "bisect", SOURCE, *TRAIN, "--metric", "max_abs", "--max", "1e-12"),
}


def run(folder: Path, seconds: float, *arguments: str) -> float:
    """Run the command line; returns the seconds that it took."""
    begun = time.perf_counter()
    environ = {"STROP_CACHE": str(folder / "cache"), "STROP_BENCH_SECONDS": str(seconds)}
    run_strop(folder, *arguments, **environ)
    return time.perf_counter() - begun


def spent(folder: Path) -> float:
    """Seconds that the pass has trained so far."""
    return sum(float(line) for line in (folder / "spent.txt").read_text().split())


def main(
    seconds: Annotated[float, typer.Option(help="How long the pass trains.")] = 60.0,
    results: ResultsFolder = RESULTS,
) -> None:
    """Build, build again with a changed later pass, and bisect."""
    took, trained = {}, {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(shutil.copy(MODEL, name)).parent
        for step, arguments in STEPS.items():
            with console.status(step):
                took[step] = run(folder, seconds, *arguments)
            trained[step] = spent(folder)
    first, again = trained["first"], trained["bisection"] - trained["first"]
    what = "seconds of training that a second build and a bisection add"
    figures = [
        Figure("seconds of training in the first build", round(first, 1)),
        Figure(what, round(again, 1), at_most=5),
    ]
    title = "seconds: " + ", ".join(f"{step} {s:.1f}" for step, s in took.items())
    show_and_save("learning", title, environment(), figures, took, results)


if __name__ == "__main__":
    typer.run(main)
