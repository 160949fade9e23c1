"""The suites of vision models and decoders: each model is built, and compared with its peers."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from strop.bench.harness.duel import duel
from strop.bench.harness.listener import Listener
from strop.bench.harness.setup import DuelSetup
from strop.bench.harness.subject import Sizes
from strop.bench.models.sources import source_of
from strop.bench.pages.page import Section, duel_section
from strop.bench.records.figures import Figure, console
from strop.bench.records.metrics import METRICS, median_speedup
from strop.bench.records.record import DuelRecord, size_label
from strop.bench.suites import encoders
from strop.bench.suites.order import Order, finish, print_duel

RECIPE = "cpu-fp32"
# The required speed for models without a bound of their own: 1, minus noise.
NOT_SLOWER = 0.97


@dataclass(frozen=True)
class Contest:
    """One model of a suite.

    Attributes:
        source: its factory.
        sizes: the cases.
    """

    source: str
    sizes: tuple[Sizes, ...]


VISION = {
    "mobilenet-v2": Contest(source_of("vision", "mobilenet_v2"), ({"batch": 1}, {"batch": 8})),
    "resnet-50": Contest(source_of("vision", "resnet50"), ({"batch": 1}, {"batch": 4})),
}
PREFILL = tuple({"batch": b, "seq": s} for b, s in ((1, 16), (1, 128), (4, 128)))
DECODERS = {"llama, 8 layers": Contest(source_of("llama", "small"), PREFILL)}


def vision(order: Order, listener: Listener) -> list[Section]:
    """Convolutional networks."""
    return _suite("vision", VISION, order, listener)


def decoders(order: Order, listener: Listener) -> list[Section]:
    """The forward of a prompt through a decoder, without a cache."""
    return _suite("decoders", DECODERS, order, listener)


def _suite(
    name: str, contests: Mapping[str, Contest], order: Order, listener: Listener
) -> list[Section]:
    records: dict[str, DuelRecord] = {}
    figures: list[Figure] = []
    for model, contest in contests.items():
        listener.stage(f"building {model}")
        records[model] = _measure(contest, order, listener)
        console.rule(model)
        print_duel(records[model])
        figures += _figures(model, records[model])
    measured = {model: record.model_dump() for model, record in records.items()}
    finish(name, next(iter(records.values())), figures, measured, order)
    return [duel_section(record, model) for model, record in records.items()]


def _measure(contest: Contest, order: Order, listener: Listener) -> DuelRecord:
    """Build a model, and compare it."""
    from strop.compiler import build
    from strop.compiler.frontend.source import load_model

    with tempfile.TemporaryDirectory(prefix="strop-bench-") as folder:
        artifact = build(load_model(contest.source), Path(folder) / "artifact", RECIPE)
        artifacts = {encoders.subject(RECIPE): artifact}
        setup = DuelSetup(artifacts, contest.source, order.against, contest.sizes, order.plan)
        return duel(setup, listener)


def _figures(model: str, record: DuelRecord) -> list[Figure]:
    """Speed over the export that users ship, and the largest difference from the original."""
    if encoders.BASELINE not in record.peers:
        return []
    own = encoders.subject(RECIPE)
    figures = []
    for case in record.cases:
        faster = median_speedup(case, own, encoders.BASELINE)
        what = f"{model} {size_label(case.sizes)}, times faster"
        figures.append(Figure(what, faster, at_least=NOT_SLOWER))
    worst, bound = METRICS["max_abs"](record, own), encoders.MAX_DIFFERENCE[RECIPE]
    return [*figures, Figure(f"{model}, max abs difference", worst, at_most=bound)]
