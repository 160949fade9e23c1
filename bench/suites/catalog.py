"""The suites: everything that the README states, measured again and written to a folder."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from strop.bench.harness.duel import duel
from strop.bench.harness.listener import Listener
from strop.bench.harness.setup import DuelSetup
from strop.bench.harness.subject import Sizes
from strop.bench.models.sources import source_of
from strop.bench.pages import tables
from strop.bench.pages.page import Section, build_section, duel_section
from strop.bench.records.figures import Figure, console, figures_of, save, show
from strop.bench.records.metrics import METRICS, median_speedup
from strop.bench.records.record import DuelRecord, Plan, size_label
from strop.bench.suites import encoders
from strop.compiler.util.errors import BudgetError, RuntimeRefusedError

RECIPE = "cpu-fp32"
# The required speed for models without a bound of their own: 1, minus noise.
NOT_SLOWER = 0.97
# Each is a command of its own, and a file of its own among the results.
LAYERS = "build_scaling"
BUILD = (
    "reproducible",
    LAYERS,
    "peak_memory",
    "check_costs",
    "instruments",
    "report",
    "repeatability",
)


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


@dataclass(frozen=True)
class Order:
    """What the command line asks of a suite.

    Attributes:
        against: peers.
        plan: how to measure.
        results: folder for the JSON.
    """

    against: Sequence[str]
    plan: Plan
    results: Path


def _encoders(order: Order, listener: Listener) -> list[Section]:
    recipes = list(encoders.SPEED)
    found = encoders.measure(recipes, order.against, order.plan, listener)
    _print(found.record)
    figures = encoders.judge(found, recipes)
    measured = {
        "record": found.record.model_dump(),
        "sentences": {name: asdict(f) for name, f in found.sentences.items()},
    }
    _finish("encoders", found.record, figures, measured, order)
    return [duel_section(found.record, "MiniLM-L6")]


def _vision(order: Order, listener: Listener) -> list[Section]:
    return _contests("vision", VISION, order, listener)


def _decoders(order: Order, listener: Listener) -> list[Section]:
    return _contests("decoders", DECODERS, order, listener)


def _contests(
    suite: str, contests: dict[str, Contest], order: Order, listener: Listener
) -> list[Section]:
    """Build each model and race it."""
    from strop.compiler import build
    from strop.compiler.frontend.source import load_model

    records: dict[str, DuelRecord] = {}
    figures: list[Figure] = []
    for name, contest in contests.items():
        with tempfile.TemporaryDirectory(prefix="strop-bench-") as folder:
            listener.stage(f"building {name}")
            artifact = build(load_model(contest.source), Path(folder) / "artifact", RECIPE)
            own = encoders.subject(RECIPE)
            setup = DuelSetup(
                {own: artifact}, contest.source, order.against, contest.sizes, order.plan
            )
            records[name] = duel(setup, listener)
        console.rule(name)
        _print(records[name])
        figures += _speeds(name, records[name], own)
    measured = {name: record.model_dump() for name, record in records.items()}
    _finish(suite, next(iter(records.values())), figures, measured, order)
    return [duel_section(record, name) for name, record in records.items()]


def _speeds(name: str, record: DuelRecord, own: str) -> list[Figure]:
    """Speed over the export that users ship, and the largest difference from the original."""
    if encoders.BASELINE not in record.peers:
        return []
    faster = [
        (f"{name} {size_label(c.sizes)}, times faster", median_speedup(c, own, encoders.BASELINE))
        for c in record.cases
    ]
    figures = [Figure(what, value, at_least=NOT_SLOWER) for what, value in faster]
    worst = METRICS["max_abs"].value(record, own)
    bound = encoders.MAX_DIFFERENCE[RECIPE]
    return [*figures, Figure(f"{name}, max abs difference", worst, at_most=bound)]


def _build(order: Order, listener: Listener) -> list[Section]:
    """Build time, memory and reproducibility, each by its own command."""
    sections: list[Section] = []
    failed: list[str] = []
    for name in BUILD:
        listener.stage(name)
        command = [
            sys.executable,
            "-m",
            f"strop.bench.measures.{name}",
            "--results",
            str(order.results),
        ]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        console.print(done.stdout)
        if done.returncode:
            failed.append(f"strop.bench.measures.{name} failed:\n{done.stderr.strip()[-2000:]}")
            continue
        result = json.loads((order.results / f"{name}.json").read_text())
        runs = result["measured"]["runs"] if name == LAYERS else {}
        sections.append(build_section(name, result["environment"], figures_of(result), runs))
    if failed:
        raise BudgetError("\n".join(failed))
    return sections


def _print(record: DuelRecord) -> None:
    """Show a duel.

    Raises:
        RuntimeRefusedError: an artifact did not run.
    """
    tables.print_record(record, console)
    for row in record.engines:
        if row.subject and row.outcome != "ran":
            raise RuntimeRefusedError(f"{row.name} {row.reason}")


def _finish(
    suite: str, record: DuelRecord, figures: Sequence[Figure], measured: object, order: Order
) -> None:
    if figures:
        show(figures, suite)
    save(suite, record.environment, figures, measured, order.results)


# Each measures, prints and writes its results, and returns the sections of its page.
SUITES: dict[str, Callable[[Order, Listener], list[Section]]] = {
    "encoders": _encoders,
    "vision": _vision,
    "decoders": _decoders,
    "build": _build,
}
