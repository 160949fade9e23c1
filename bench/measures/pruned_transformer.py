"""The textbook's encoder-decoder Transformer without half of its FFN channels and heads.

``python -m strop.bench.measures.pruned_transformer`` trains Transformers to reverse random symbols,
and builds each with the recipes for pruned models: half of the FFN channels, and half of the heads
of encoder, decoder and between them, go; what is left learns from the original. Accuracies are
shares of right symbols on sequences that nothing was trained on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
import typer

from strop.bench.models.reversal import Translator, right, task
from strop.bench.records.figures import RESULTS, Figure, ResultsFolder, show_and_save
from strop.bench.records.machine import environment
from strop.bench.trials.arms import trained
from strop.bench.trials.sample import Seeds, for_each_seed, samples
from strop.bench.trials.stages import stages
from strop.compiler import Model
from strop.passes.train import Policy

DENSE = Policy(steps=1000, lr=2e-3, held_out=0)
RECIPES = ("cpu-pruned-fp32", "cpu-pruned-int8")
SETTINGS = (
    "prune-heads.share=0.5",
    "recover.minutes=0",
    "recover.steps=600",
    "recover.lr=2e-3",
    "recover.hard=1",
)
# Of the original's outputs; what is kept of the task is measured here, and not refused.
COSINE = "budget.min_cosine=0.7"
BEFORE, PRUNED, RECOVERED = "before", "pruned", "recovered"
Found = dict[str, float]


def model(seed: int) -> Model:
    """A Transformer that learned to reverse, with the data to learn it again."""
    made = task()
    return Model(
        trained(Translator, made, replace(DENSE, seed=seed)).eval(),
        made.inputs(made.train[0]),
        made.dynamic,
        calibration=[made.inputs(batch) for batch in made.validation],
        evaluate=lambda run: {"accuracy": right(run, made.test)},
        train=made.train,
        loss=made.loss,
    )


def trial(seed: int) -> Found:
    """Accuracies by stage, and of the files."""
    from strop.compiler import build
    from strop.compiler.recipes.loading import asked_recipe

    original = model(seed)
    found: Found = {}
    with tempfile.TemporaryDirectory(prefix="strop-bench-") as folder:
        for name in RECIPES:  # the second one finds in the cache what the first one learned
            recipe = asked_recipe(name, [*SETTINGS, COSINE, f"recover.seed={seed}"])
            artifact = build(original, Path(folder) / name, recipe)
            by_stage = stages(artifact)
            found |= {
                BEFORE: artifact.manifest["metrics"]["original"]["accuracy"],
                PRUNED: by_stage["before"]["accuracy"],
                RECOVERED: by_stage["after"]["accuracy"],
                f"file of {name}": by_stage["file"]["accuracy"],
            }
    return found


def figures(trials: Sequence[Found]) -> list[Figure]:
    """What is claimed: means over seeds in percent, and how many points are lost."""
    found = samples([{what: 100 * value for what, value in one.items()} for one in trials])
    made = [one.figure(f"symbols that are right, {what}, percent") for what, one in found.items()]
    for what in (RECOVERED, *(f"file of {name}" for name in RECIPES)):
        lost = found[BEFORE].minus(found[what])
        made.append(lost.figure(f"points that are lost, {what}", at_most=1))
    return made


def main(seeds: Seeds = 3, results: ResultsFolder = RESULTS) -> None:
    """Run every trial, and compare."""
    torch.set_num_threads(1)
    place = environment(threads=1)
    trials = for_each_seed("Transformer", trial, range(seeds))
    measured = {"dense": asdict(DENSE), "settings": [*SETTINGS, COSINE], "trials": trials}
    title = "Transformers without half of FFN and heads"
    show_and_save("pruned_transformer", title, place, figures(trials), measured, results)


if __name__ == "__main__":
    typer.run(main)
