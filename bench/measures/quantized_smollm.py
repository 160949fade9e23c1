"""SmolLM2-135M in int8: what smoothing, parted neurons and scales for each row do to perplexity.

``python -m strop.bench.measures.quantized_smollm`` builds the decoder with ``cpu-int8`` as it is,
with parts of it left out, and with a scale for each row, and measures the files on held-out text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import torch
import typer

from strop.bench.models import smollm
from strop.bench.records.figures import RESULTS, Figure, ResultsFolder, console, show_and_save
from strop.bench.records.machine import environment
from strop.compiler import Model, build, load
from strop.compiler.recipes.loading import asked_recipe
from strop.passes.distill.losses import next_token

FLOAT, BEST = "fp32", "int8, smoothed, outliers apart, a scale for each row"
# What is set beside the recipe, and which of its passes are left out.
VARIANTS: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "int8 alone": ((), ("outliers", "smooth")),
    "int8, a scale for each row": (("quantize.scales=row",), ("outliers", "smooth")),
    "int8, smoothed": ((), ("outliers",)),
    "int8, smoothed, outliers apart": ((), ()),
    BEST: (("quantize.scales=row",), ()),
}
# The recipe's own bound would stop the build of those that are shown to miss it.
_UNBOUNDED = "budget.min_cosine=0"


def perplexity(folder: Path, batches: Sequence[Mapping[str, torch.Tensor]]) -> float:
    """exp of the mean loss of an artifact; batches have one size."""
    run = load(folder)
    losses = []
    for batch in batches:
        logits = torch.from_numpy(run(**{name: t.numpy() for name, t in batch.items()})[0])
        losses.append(next_token(logits, batch["input_ids"]))
    return math.exp(float(torch.stack(losses).mean()))


def built(model: Model, settings: Sequence[str], without: Sequence[str], folder: Path) -> Path:
    """Build a variant of the recipe."""
    recipe = asked_recipe("cpu-int8", [*settings, _UNBOUNDED])
    passes = [entry for entry in recipe.passes if entry.name not in without]
    build(model, folder, recipe.model_copy(update={"passes": passes}), instruments="off")
    return folder


def measure(rows: int) -> dict[str, float]:
    """Held-out perplexity by variant."""
    model, batches = smollm.make(), smollm.batches("test", rows)
    with TemporaryDirectory(prefix="strop-bench-") as name:
        with console.status(FLOAT):
            folder = Path(name) / FLOAT
            build(model, folder, "cpu-fp32", instruments="off")
            found = {FLOAT: perplexity(folder, batches)}
        for number, (variant, (settings, without)) in enumerate(VARIANTS.items()):
            with console.status(variant):
                folder = built(model, settings, without, Path(name) / str(number))
                found[variant] = perplexity(folder, batches)
    return found


def figures(found: Mapping[str, float]) -> list[Figure]:
    """By how many percent each is above float."""
    made = [Figure("perplexity, fp32", found[FLOAT])]
    for variant in VARIANTS:
        worse = 100 * (found[variant] / found[FLOAT] - 1)
        bound = 2.0 if variant == BEST else None
        made.append(Figure(f"percent above fp32, {variant}", worse, at_most=bound))
    return made


def main(
    rows: Annotated[int, typer.Option(min=smollm.ROWS, help="Of 128 held-out tokens.")] = 64,
    results: ResultsFolder = RESULTS,
) -> None:
    """Build every variant, and compare."""
    found = measure(rows)
    measured = {"rows": rows, "perplexity": found}
    title = "SmolLM2-135M in int8"
    show_and_save("quantized_smollm", title, environment(), figures(found), measured, results)


if __name__ == "__main__":
    typer.run(main)
