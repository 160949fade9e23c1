"""What is known of a duel so far, and the record that comes of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from strop.bench.harness.bout import Samples
from strop.bench.harness.canary import Best
from strop.bench.harness.setup import DuelSetup
from strop.bench.harness.subject import Reference
from strop.bench.records.figures import Spread
from strop.bench.records.record import (
    BenchCase,
    Bouts,
    DuelRecord,
    EngineOutcome,
    EngineRow,
    Fidelity,
    InputKind,
    Plan,
    Result,
    counted,
    ratios,
    size_label,
    spread,
)
from strop.compiler.util.numerics import Array, drift

# Of the planned rounds, the share that must have been calm for the others not to count.
ENOUGH = 0.5


@dataclass
class EngineLog:
    """What is known of one engine so far.

    Attributes:
        outcome: how it went.
        reason: why it does not take part, if it does not.
        fidelity: by case.
        samples: by threads and case, milliseconds of each round of each bout.
        load_ms: of each start.
        memory: peak bytes of each start.
    """

    outcome: EngineOutcome = "ran"
    reason: str | None = None
    fidelity: dict[str, Fidelity | None] = field(default_factory=dict)
    samples: dict[tuple[int, str], list[list[float]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    load_ms: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)


class DuelLog:
    """What is known of all engines so far.

    Attributes:
        references: inputs and the original's outputs, by case.
        engines: by name.
        best: the best time of the canary, by threads.
        looks: what the canary took around each round of each bout, by threads and case.
    """

    def __init__(self, setup: DuelSetup, references: Sequence[Reference]) -> None:
        self.setup = setup
        self.references = {size_label(r.sizes): r for r in references}
        # Peers first: they are what is compared with.
        self.engines = {name: EngineLog() for name in (*setup.against, *setup.artifacts)}
        self.best = {threads: Best() for threads in setup.plan.threads}
        self.looks = defaultdict[tuple[int, str], list[list[float]]](list)

    @property
    def taking_part(self) -> dict[str, EngineLog]:
        """The engines that have not failed."""
        return {name: log for name, log in self.engines.items() if log.outcome == "ran"}

    def drop(self, name: str, outcome: EngineOutcome, reason: str) -> None:
        """Enter that an engine does not take part any more."""
        self.engines[name].outcome, self.engines[name].reason = outcome, reason

    def not_compared(self, name: str) -> list[str]:
        """The cases in which an engine's outputs were not compared yet."""
        return [case for case in self.references if case not in self.engines[name].fidelity]

    def add_outputs(self, name: str, case: str, outputs: Sequence[Array]) -> None:
        """Compare an engine's outputs with the original's."""
        self.engines[name].fidelity[case] = fidelity(self.references[case], outputs)

    def add_looks(self, threads: int, looks: Mapping[str, list[float]]) -> None:
        """Enter the looks of one bout, by case."""
        for case, of in looks.items():
            self.looks[threads, case].append(of)

    def add_samples(self, threads: int, samples: Samples) -> None:
        """Enter the times of one bout."""
        for case, of in samples.items():
            for name, times in of.items():
                self.engines[name].samples[threads, case].append(times)

    def add_start(self, name: str, load_ms: float, memory: int) -> None:
        """Enter what an engine's process took in one bout."""
        self.engines[name].memory.append(memory)
        self.engines[name].load_ms.append(load_ms)

    def record(self, environment: dict[str, Any], sizes: Mapping[str, int | None]) -> DuelRecord:
        """The record of the duel; ``sizes`` are bytes of the files of engines that ran."""
        plan = self.setup.plan
        return DuelRecord(
            environment=environment,
            plan=plan,
            inputs=self._inputs,
            baseline=self._baseline,
            engines=[self._row(name, log, sizes) for name, log in self.engines.items()],
            cases=[self.case(t, case) for t in plan.threads for case in self.references],
        )

    @property
    def _inputs(self) -> InputKind:
        if self.setup.texts:
            return "prompts"
        return "made up" if self.setup.source is None else "the model's"

    @property
    def _baseline(self) -> str | None:
        return next((name for name in self.setup.against if name in self.taking_part), None)

    def case(self, threads: int, label: str) -> BenchCase:
        """What was measured in one case."""
        looks = self.looks[threads, label]
        calm, few = calm_rounds(looks, self.best[threads], self.setup.plan)
        ran, baseline = self.taking_part, self._baseline
        times = {n: counted(log.samples[threads, label], calm, few) for n, log in ran.items()}
        results = {
            name: Result(
                milliseconds=spread(bouts),
                speedup=Spread.of(ratios(times[baseline], bouts)) if baseline else None,
                samples=ran[name].samples[threads, label],
                fidelity=ran[name].fidelity[label],
            )
            for name, bouts in times.items()
        }
        return BenchCase(
            threads=threads,
            sizes=self.references[label].sizes,
            results=results,
            canary_ms=looks,
            calm=calm,
            all_count=few,
        )

    def _row(self, name: str, log: EngineLog, sizes: Mapping[str, int | None]) -> EngineRow:
        ran = log.outcome == "ran"
        return EngineRow(
            name=name,
            subject=name in self.setup.artifacts,
            outcome=log.outcome,
            reason=log.reason,
            bytes=sizes[name] if ran else None,
            load_ms=Spread.of(log.load_ms) if ran else None,
            peak_memory_bytes=Spread.of(log.memory) if ran else None,
        )


def calm_rounds(looks: Bouts, best: Best, plan: Plan) -> tuple[list[list[bool]], bool]:
    """By bouts, in which rounds the machine was calm; and whether they are too few to count alone.

    Args:
        looks: what the canary took around each round, in milliseconds.
        best: its shortest time.
        plan: how many rounds were wanted.
    """
    calm = [[best.calm(look) for look in bout] for bout in looks]
    return calm, sum(map(sum, calm)) < ENOUGH * plan.bouts * plan.rounds


def fidelity(reference: Reference, got: Sequence[Array]) -> Fidelity | None:
    """How near outputs are to the original's; None where they are not the same outputs."""
    want = reference.outputs
    if want is None or [a.shape for a in got] != [a.shape for a in want.values()]:
        return None
    found = drift(dict(zip(want, got)), want)
    return Fidelity(**found.rounded())
