"""MiniLM pruned, distilled and in int8, against OpenVINO + NNCF, which keeps all of it.

``python -m strop.bench.measures.pruned_minilm [--minutes 18]`` builds it twice with
``cpu-pruned-int8``: a little smaller, and much smaller. Each build learns for so many minutes from
sentences without labels. Speed is measured in processes of their own, in interleaved rounds.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from strop.bench.harness.duel import prepared
from strop.bench.harness.listener import listening
from strop.bench.harness.setup import DuelSetup
from strop.bench.measures.quantized_minilm import SIZES
from strop.bench.measures.recovery import COSINE, LEARNING
from strop.bench.models.sources import source_of
from strop.bench.records.figures import RESULTS, Figure, ResultsFolder, show_and_save
from strop.bench.records.machine import environment
from strop.bench.records.metrics import median_speedup
from strop.bench.records.record import DuelRecord, Plan, size_label
from strop.bench.suites.encoders import SOURCE
from strop.compiler import build
from strop.compiler.artifact.folder import Artifact
from strop.compiler.frontend.source import load_model
from strop.compiler.recipes.loading import asked_recipe

RECIPE, PEER = "cpu-pruned-int8", "openvino-nncf"


@dataclass(frozen=True)
class Goal:
    """How much is pruned, and what is wanted of the result.

    Attributes:
        shares: the options of the two passes that prune.
        cosine: of pooled embeddings with those of the original, at least.
        speed: over the peer at every size, at least.
    """

    shares: tuple[str, ...]
    cosine: float
    speed: float


GOALS: Mapping[str, Goal] = {
    "a little smaller": Goal(("prune-ffn.share=0.2", "prune-heads.share=0.09"), 0.99, 1.25),
    "much smaller": Goal(("prune-ffn.share=0.45", "prune-heads.share=0.25"), 0.965, 1.6),
}


def built(goal: Goal, folder: Path, minutes: float) -> Artifact:
    """MiniLM as one goal wants it; what is lost is measured here, and not refused."""
    settings = [*goal.shares, "budget.min_cosine=0", f"recover.minutes={minutes}", *LEARNING]
    model = load_model(source_of("minilm", "make_recoverable"))
    return build(model, folder, asked_recipe(RECIPE, settings))


def figures(record: DuelRecord, cosines: Mapping[str, float]) -> Iterator[Figure]:
    """Cosine and speed of both."""
    for name, goal in GOALS.items():
        yield Figure(f"{name}: pooled cosine of the int8 file", cosines[name], goal.cosine)
        for case in record.cases:
            faster = median_speedup(case, name, PEER)
            yield Figure(f"{name}: {size_label(case.sizes)}, × {PEER}", faster, goal.speed)


def measure(minutes: float, plan: Plan) -> tuple[DuelRecord, dict[str, float]]:
    """Build both and time them beside the peer."""
    artifacts = {}
    with listening() as listener, tempfile.TemporaryDirectory(prefix="strop-bench-") as folder:
        for number, (name, goal) in enumerate(GOALS.items()):
            listener.stage(f"building {name}: {minutes:g} minutes of learning")
            artifacts[name] = built(goal, Path(folder) / str(number), minutes)
        with prepared(DuelSetup(artifacts, SOURCE, (PEER,), SIZES, plan), listener) as session:
            record = session.run(listener)
    return record, {n: a.manifest["metrics"]["artifact"][COSINE] for n, a in artifacts.items()}


def main(
    minutes: Annotated[float, typer.Option(help="How long each of them learns.")] = 18.0,
    bouts: Annotated[int, typer.Option(min=1, help="How often engines start anew.")] = 2,
    results: ResultsFolder = RESULTS,
) -> None:
    """Measure, and hold the figures against their bounds."""
    place = environment(2)
    record, cosines = measure(minutes, Plan(threads=[2], bouts=bouts))
    made = list(figures(record, cosines))
    measured = {"minutes": minutes, "cosines": cosines, "record": record.model_dump()}
    title = f"MiniLM pruned, distilled for {minutes:g} minutes, and in int8"
    show_and_save("pruned_minilm", title, place, made, measured, results)


if __name__ == "__main__":
    typer.run(main)
