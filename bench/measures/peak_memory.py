"""Peak memory of building a 3.4 GB Llama through the command line, measured from outside.

``python -m strop.bench.measures.peak_memory``
"""

from __future__ import annotations

from typing import Annotated

import typer

from strop.bench.measures.builds import watched_build, weights_gb
from strop.bench.models.sources import source_of
from strop.bench.records.figures import RESULTS, Figure, ResultsFolder, console, show_and_save
from strop.bench.records.machine import environment

# Peak memory that is allowed: this share of the weights, and so many GB.
ALLOWED_RATIO, ALLOWED_GB = 1.3, 0.6


def main(
    recipe: Annotated[str, typer.Option(help="The recipe to build with.")] = "cpu-fp32",
    source: Annotated[str, typer.Option(help="FILE.py:make; the 3.4 GB Llama by default.")] = "",
    results: ResultsFolder = RESULTS,
) -> None:
    """Build a large model in a new process, and compare its peak memory with the bound."""
    source = source or source_of("llama", "large")
    with console.status("building"):
        weights, build = weights_gb(source), watched_build(source, recipe)
    allowed = ALLOWED_RATIO * weights + ALLOWED_GB
    figures = [Figure("peak memory, GB", build.process.peak_gb, at_most=round(allowed, 3))]
    measured = {"weights_gb": weights, "recipe": recipe, **build.record()}
    title = f"{weights:.2f} GB of weights, recipe {recipe}"
    show_and_save("peak_memory", title, environment(), figures, measured, results)


if __name__ == "__main__":
    typer.run(main)
