"""The encoders suite: MiniLM with its real weights, as recipes build it, against its peers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from strop.bench.harness.duel import prepared
from strop.bench.harness.listener import Listener
from strop.bench.harness.setup import DuelSetup
from strop.bench.models.sources import source_of
from strop.bench.pages.page import Section, duel_section
from strop.bench.records.figures import Figure
from strop.bench.records.metrics import METRICS, median_speedup
from strop.bench.records.record import DuelRecord, Plan, size_label
from strop.bench.suites.embeddings import EmbeddingAgreement, sentence_fidelity
from strop.bench.suites.order import Order, finish, print_duel

# What is timed, on rows without padding; and what is built, calibrated on rows with some.
SOURCE, CALIBRATED = source_of("minilm", "make_full"), source_of("minilm", "make")
SIZES: tuple[dict[str, int], ...] = (
    {"batch": 1, "seq": 16},
    {"batch": 1, "seq": 128},
    {"batch": 8, "seq": 128},
)
# The peer that the bounds on speed and size are about.
BASELINE = "ort"
# Required speed over the baseline, by case; and the other bounds.
SPEED: dict[str, dict[str, float]] = {
    "cpu-fp32": {"batch=1 seq=128": 1.3, "batch=8 seq=128": 1.3},
    "cpu-int8": {"batch=1 seq=16": 4.0, "batch=1 seq=128": 3.0, "batch=8 seq=128": 3.0},
}
MAX_DIFFERENCE = {"cpu-fp32": 1e-4}
LEAST_COSINE = {"cpu-int8": 0.985}
MOST_SIZE = {"cpu-int8": 0.26}


@dataclass(frozen=True)
class Found:
    """A duel, and how near the engines' sentence embeddings are to the original's."""

    record: DuelRecord
    sentences: dict[str, EmbeddingAgreement]


def subject(recipe: str) -> str:
    """What an artifact is called in tables."""
    return f"strop {recipe}"


def run(order: Order, listener: Listener) -> list[Section]:
    """The suite, with every recipe that has a bound."""
    recipes = list(SPEED)
    found = measure(recipes, order.against, order.plan, listener)
    print_duel(found.record)
    measured = {
        "record": found.record.model_dump(),
        "sentences": {name: asdict(f) for name, f in found.sentences.items()},
    }
    finish("encoders", found.record, judge(found, recipes), measured, order)
    return [duel_section(found.record, "MiniLM-L6")]


def measure(
    recipes: Sequence[str],
    against: Sequence[str],
    plan: Plan,
    listener: Listener,
    keep: Mapping[str, Path] | None = None,
) -> Found:
    """Build the recipes, time them, and compare embeddings; artifacts stay where ``keep`` says."""
    from strop.compiler import build
    from strop.compiler.frontend.source import load_model

    with TemporaryDirectory(prefix="strop-bench-") as folder:
        artifacts = {}
        for recipe in recipes:
            listener.stage(f"building {recipe}")
            place = (keep or {}).get(recipe, Path(folder) / recipe)
            artifacts[subject(recipe)] = build(load_model(CALIBRATED), place, recipe)
        with prepared(DuelSetup(artifacts, SOURCE, against, SIZES, plan), listener) as session:
            record = session.run(listener)
            listener.stage("comparing embeddings")
            return Found(record, sentence_fidelity(session, SOURCE))


def judge(found: Found, recipes: Sequence[str]) -> list[Figure]:
    """The figures of all recipes."""
    figures: list[Figure] = []
    for recipe in recipes:
        figures += _speeds(found.record, recipe)
        name = subject(recipe)
        if recipe in MAX_DIFFERENCE:
            what, bound = f"{recipe}, max abs difference", MAX_DIFFERENCE[recipe]
            worst = METRICS["max_abs"](found.record, name)
            figures.append(Figure(what, worst, at_most=bound))
        if recipe in LEAST_COSINE:
            what, bound = f"{recipe}, pooled cosine", LEAST_COSINE[recipe]
            figures.append(Figure(what, found.sentences[name].cosine, at_least=bound))
        if recipe in MOST_SIZE and BASELINE in found.record.peers:
            sizes = [METRICS["size_mb"](found.record, n) for n in (name, BASELINE)]
            what, bound = f"{recipe}, size over fp32", MOST_SIZE[recipe]
            figures.append(Figure(what, sizes[0] / sizes[1], at_most=bound))
    return figures


def _speeds(record: DuelRecord, recipe: str) -> Iterator[Figure]:
    """Speed over the export that users ship, case by case."""
    for case in record.cases:
        sizes = size_label(case.sizes)
        bound = SPEED.get(recipe, {}).get(sizes)
        if bound and BASELINE in case.results:
            faster = median_speedup(case, subject(recipe), BASELINE)
            yield Figure(f"{recipe} {sizes}, times faster", faster, at_least=bound)
