"""MiniLM with weights of 4 bits: how small the file is, and how near it stays to the original.

``python -m strop.bench.measures.int4_minilm`` builds MiniLM by ``cpu-fp32`` and by ``cpu-int4``
(groups of 32, embedding tables included) with each method, calibrated on sentences of docstrings,
and compares the files on sentences of others.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from strop.bench.models.sources import source_of
from strop.bench.records.figures import RESULTS, Figure, ResultsFolder, console, show_and_save
from strop.bench.records.machine import environment
from strop.compiler.artifact.folder import Artifact

BEST = "gptq"
METHODS = ("nearest", "mse", "hqq", "awq", BEST)
COSINE, OVERLAP = "pooled_cosine", "overlap_at_10"
Found = dict[str, dict[str, float]]


def built(recipe: str, folder: Path, *settings: str) -> Artifact:
    """MiniLM by a recipe, with sentences to calibrate on."""
    from strop.compiler import build
    from strop.compiler.frontend.source import load_model
    from strop.compiler.recipes.loading import asked_recipe

    with console.status(f"building {folder.name}"):
        model = load_model(source_of("minilm", "make_recoverable"))
        # What is lost is measured here, and not refused.
        asked = asked_recipe(recipe, ["budget.min_cosine=0", *settings])
        return build(model, folder, asked)


def measured(folder: Path, methods: tuple[str, ...]) -> Found:
    """Bytes of each file, and how near it is to the original."""
    plain = built("cpu-fp32", folder / "fp32")
    found: Found = {"fp32": {"bytes": plain.model_path.stat().st_size}}
    for method in methods:
        made = built("cpu-int4", folder / method, f'quantize-weights.method="{method}"')
        metrics: dict[str, Any] = made.manifest["metrics"]["artifact"]
        found[method] = {"bytes": made.model_path.stat().st_size, **metrics}
    return found


def figures(found: Mapping[str, Mapping[str, float]]) -> list[Figure]:
    """What is claimed."""
    made = [
        Figure(
            "file of int4 g32, share of fp32",
            found[BEST]["bytes"] / found["fp32"]["bytes"],
            at_most=0.17,
        )
    ]
    for method in (name for name in found if name != "fp32"):
        bound = 0.97 if method == BEST else None
        made.append(Figure(f"pooled cosine, {method}", found[method][COSINE], at_least=bound))
        made.append(Figure(f"overlap of the ten nearest, {method}", found[method][OVERLAP]))
    return made


def main(
    slow: Annotated[bool, typer.Option(help="Also AdaRound, for ten minutes.")] = False,
    results: ResultsFolder = RESULTS,
) -> None:
    """Build with each method, and compare."""
    place = environment()
    methods = (*METHODS, "adaround") if slow else METHODS
    with tempfile.TemporaryDirectory(prefix="strop-bench-") as name:
        found = measured(Path(name), methods)
    show_and_save(
        "int4_minilm", "MiniLM with weights of 4 bits", place, figures(found), found, results
    )


if __name__ == "__main__":
    typer.run(main)
