"""How much of what pruning costs comes back: MiniLM with half its FFN and a third of its heads.

``python -m strop.bench.measures.recovery [--minutes 18]`` builds MiniLM as ``cpu-int8`` and as
``cpu-pruned-int8``, which learns from sentences without labels, and compares both on sentences
that neither has seen. Speed is measured in processes of their own, in interleaved rounds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from strop.bench.harness.duel import prepared
from strop.bench.harness.listener import Listener
from strop.bench.harness.setup import DuelSetup
from strop.bench.models.sources import source_of
from strop.bench.records.figures import RESULTS, Figure, ResultsFolder, console, show_and_save
from strop.bench.records.machine import environment
from strop.bench.records.metrics import median_speedup
from strop.bench.records.record import DuelRecord, Plan, size_label
from strop.bench.trials.stages import stages
from strop.compiler.artifact.folder import Artifact

PLAIN, PRUNED = "cpu-int8", "cpu-pruned-int8"
SIZES: tuple[dict[str, int], ...] = (
    {"batch": 1, "seq": 16},
    {"batch": 1, "seq": 128},
    {"batch": 8, "seq": 128},
)
LEARNING = (
    "recover.lr=8e-4",
    "recover.bf16=true",
    # It ends by the clock: few validations leave more time for updates.
    "recover.check_every=500",
    "recover.most_held_out=16",
    # In the first steps, values inside teach more than the last ones alone.
    "recover.hidden=16.0",
    # All values of the teacher, so that it runs once for each sentence.
    "recover.teacher_gib=12.0",
    # The table of words is not pruned, holds half of all weights, and costs time in every step.
    'recover.freeze=["embeddings.word_embeddings.weight"]',
    # Sentences are compared by their last hidden states; nobody reads the other output.
    'recover.outputs=["pooler_output=ignored"]',
)
COSINE, OVERLAP = "pooled_cosine", "overlap_at_10"


def built(recipe: str, folder: Path, minutes: float) -> Artifact:
    """MiniLM by one recipe, with sentences to learn from."""
    from strop.compiler import build
    from strop.compiler.frontend.source import load_model
    from strop.compiler.recipes.loading import asked_recipe

    settings = ["budget.min_cosine=0"]  # what is lost is measured here, and not refused
    if recipe == PRUNED:
        settings += [f"recover.minutes={minutes}", *LEARNING]
    with console.status(f"building {recipe}"):
        model = load_model(source_of("minilm", "make_recoverable"))
        return build(model, folder / recipe, asked_recipe(recipe, settings))


def timed(artifacts: Mapping[str, Artifact]) -> DuelRecord:
    """Both artifacts on rows without padding, on two threads."""
    setup = DuelSetup(artifacts, source_of("minilm", "make_full"), (), SIZES, Plan(threads=[2]))
    with prepared(setup, Listener()) as session:
        return session.run(Listener())


def figures(found: Mapping[str, Mapping[str, float]], record: DuelRecord) -> list[Figure]:
    """What is claimed."""
    lost = 1 - found["before"][COSINE]
    back = (found["after"][COSINE] - found["before"][COSINE]) / lost
    after = found["after"]
    made = [
        Figure("pooled cosine after pruning", found["before"][COSINE]),
        Figure("pooled cosine after recovery", after[COSINE]),
        Figure("share of the lost cosine that is recovered", back, at_least=0.92),
        Figure("overlap of the ten nearest after pruning", found["before"][OVERLAP]),
        Figure("overlap of the ten nearest after recovery", after[OVERLAP], at_least=0.83),
        Figure("pooled cosine of the int8 file", found["file"][COSINE]),
        Figure("overlap of the ten nearest of the int8 file", found["file"][OVERLAP]),
    ]
    for case in record.cases:
        faster = median_speedup(case, PRUNED, PLAIN)
        what = f"speed of the pruned int8 file over the other, {size_label(case.sizes)}"
        made.append(Figure(what, faster, at_least=1.4))
    return made


def main(
    minutes: Annotated[float, typer.Option(help="How long it trains.")] = 18.0,
    results: ResultsFolder = RESULTS,
) -> None:
    """Build both, read what was measured at each stage, and time them."""
    with tempfile.TemporaryDirectory(prefix="strop-bench-") as name:
        artifacts = {recipe: built(recipe, Path(name), minutes) for recipe in (PLAIN, PRUNED)}
        found = stages(artifacts[PRUNED])
        record = timed(artifacts)
    measured = {"minutes": minutes, "stages": found, "record": record.model_dump()}
    title = f"MiniLM, pruned and recovered in {minutes:g} minutes"
    show_and_save("recovery", title, environment(), figures(found, record), measured, results)


if __name__ == "__main__":
    typer.run(main)
