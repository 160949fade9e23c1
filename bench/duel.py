"""A duel: artifacts and peers, each in a process of its own, take turns on the same inputs.

All engines are started anew for each bout, in another order: a process that got a bad place in
memory stays slow for as long as it lives, and must not decide a comparison.
"""

from __future__ import annotations

import random
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from strop.bench.canary import Best, canary, is_calm
from strop.bench.engines import Engine, OnnxFile, Worker, workers
from strop.bench.figures import Spread
from strop.bench.listener import Listener
from strop.bench.machine import environment
from strop.bench.peers import PEERS, Preparations
from strop.bench.process import EngineError, isolated
from strop.bench.race import Race, Samples
from strop.bench.record import (
    BenchCase,
    DuelRecord,
    EngineOutcome,
    EngineRow,
    Fidelity,
    Plan,
    Result,
    counted,
    ratios,
    size_label,
    spread,
)
from strop.bench.subject import Feeds, Reference, Sizes, made_up, references
from strop.compiler.artifact.folder import Artifact
from strop.compiler.util.errors import UsageError
from strop.compiler.util.numerics import Array, drift

# Of the planned rounds, the share that must have been calm for the others not to count.
ENOUGH = 0.5


@dataclass(frozen=True)
class Challenge:
    """What is to be compared, and how.

    Attributes:
        artifacts: strop's own, by the name they get in tables.
        source: of the original model; None where it is not known.
        against: names of peers; the first that runs is the baseline.
        sizes: the cases; the example's own sizes if there are none.
        plan: how to measure.
    """

    artifacts: Mapping[str, Artifact]
    source: str | None
    against: Sequence[str]
    sizes: Sequence[Sizes]
    plan: Plan


def duel(challenge: Challenge, listener: Listener) -> DuelRecord:
    """Prepare, race and compare.

    Raises:
        UsageError: the original model cannot be loaded or run.
    """
    with prepared(challenge, listener) as ring:
        return ring.fight(listener)


@contextmanager
def prepared(challenge: Challenge, listener: Listener) -> Iterator[Ring]:
    """Compute the references and prepare the peers; the files live as long as the block.

    Raises:
        UsageError: the original model cannot be loaded or run.
    """
    with tempfile.TemporaryDirectory(prefix="strop-bench-") as folder:
        listener.stage("running the original")
        known = _references(challenge)
        plan, source = challenge.plan, challenge.source or ""
        ring = Ring(challenge, known, Preparations(source, Path(folder), plan.timeout))
        for name in challenge.against:
            listener.stage(f"preparing {name}")
            ring.prepare(name)
        yield ring


def _references(challenge: Challenge) -> list[Reference]:
    contract = next(iter(challenge.artifacts.values())).manifest["contract"]
    if challenge.source is None:
        return made_up(contract, challenge.sizes)
    source, timeout = challenge.source, challenge.plan.timeout
    try:
        found: list[Reference] = isolated(references, source, challenge.sizes, timeout=timeout)
    except EngineError as error:
        raise UsageError(f"the original model ({source}) does not run: {error}") from error
    for what, got, want in (
        ("inputs", found[0].feeds, contract["inputs"]),
        ("outputs", found[0].outputs or {}, contract["outputs"]),
        ("dims", found[0].sizes, contract["dims"]),
    ):
        if set(got) != {w["name"] for w in want}:
            names = [", ".join(sorted(n)) or "none" for n in (got, [w["name"] for w in want])]
            raise UsageError(
                f"{source} is not what the artifact was built from: it has the {what} {names[0]}, "
                f"the artifact has {names[1]}. Give its own --source."
            )
    _require_outputs(found[0], contract, source)
    return found


def _require_outputs(found: Reference, contract: Mapping[str, Any], source: str) -> None:
    """Hold the original's outputs to the sizes that the artifact has.

    Raises:
        UsageError: they are others.
    """
    for spec in contract["outputs"]:
        got, want = list((found.outputs or {})[spec["name"]].shape), spec["shape"]
        if len(got) != len(want) or any(w not in (g, str(w)) for g, w in zip(got, want)):
            raise UsageError(
                f"{source} is not what the artifact was built from: its output '{spec['name']}' "
                f"has the shape {got}, the artifact's has {want}. Give its own --source."
            )


@dataclass
class EngineLog:
    """What is known of one engine so far.

    Attributes:
        outcome: how it went.
        reason: why it is out, if it is.
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


class Ring:
    """A duel under way."""

    def __init__(
        self, challenge: Challenge, known: Sequence[Reference], preparations: Preparations
    ) -> None:
        self.challenge = challenge
        self.references = {size_label(r.sizes): r for r in known}
        self.preparations = preparations
        # Peers first: they are what is compared with.
        self.logs = {name: EngineLog() for name in (*challenge.against, *challenge.artifacts)}
        self.best = {threads: Best() for threads in challenge.plan.threads}
        self.looks = defaultdict[tuple[int, str], list[list[float]]](list)

    def prepare(self, name: str) -> None:
        """Prepare a peer, or put on record why it cannot take part."""
        log = self.logs[name]
        if lack := PEERS[name].lacks():
            log.outcome, log.reason = "missing", lack
        elif failure := self.preparations.prepare(name):
            log.outcome, log.reason = "failed", failure

    def engine(self, name: str, threads: int) -> Engine:
        """One that takes part."""
        if name in self.challenge.artifacts:
            return OnnxFile(name, threads, self.challenge.artifacts[name].model_path)
        return self.preparations.engine(name, threads)

    def engines(self, threads: int) -> list[Engine]:
        """Everybody who is still in it."""
        return [self.engine(n, threads) for n, log in self.logs.items() if log.outcome == "ran"]

    def fight(self, listener: Listener) -> DuelRecord:
        """All bouts with all numbers of threads, and what came of them."""
        plan, place = self.challenge.plan, environment(max(self.challenge.plan.threads))
        done, total = 0, plan.bouts * len(plan.threads) * plan.rounds * len(self.references)

        def tick() -> None:
            nonlocal done
            done += 1
            listener.share(done / total)

        for bout in range(plan.bouts):
            for threads in plan.threads:
                listener.stage(f"bout {bout + 1} of {plan.bouts}, threads: {threads}")
                for name, reason in self._bout(bout, threads, tick).items():
                    self.logs[name].outcome, self.logs[name].reason = "failed", reason
        return self._record(place)

    def _bout(self, number: int, threads: int, tick: Callable[[], None]) -> dict[str, str]:
        """Start everybody anew and race; why engines that fell out did."""
        plan, order = self.challenge.plan, self.engines(threads)
        random.Random(number).shuffle(order)
        with (
            canary(threads, self.best[threads], plan.patience) as watch,
            workers(order, self._feeds(), plan.timeout) as (running, lost),
        ):
            lost |= self._inspect(running)
            race = Race(running, list(self.references), plan, watch, tick)
            samples = race.run()
            for case, looks in race.looks.items():
                self.looks[threads, case].append(looks)
            left = {name: w for name, w in running.items() if name not in race.fallen}
            return lost | race.fallen | self._collect(left, threads, samples)

    def _feeds(self) -> dict[str, Feeds]:
        return {case: r.feeds for case, r in self.references.items()}

    def _inspect(self, running: dict[str, Worker]) -> dict[str, str]:
        """Compare outputs with the original's, once; engines that do not run are left out."""
        lost = {}
        for name, worker in list(running.items()):
            try:
                for case, reference in self.references.items():
                    if case not in self.logs[name].fidelity:
                        outputs = worker.outputs(case)
                        self.logs[name].fidelity[case] = fidelity(reference, outputs)
            except EngineError as error:
                lost[name] = f"does not run: {error}"
                del running[name]
        return lost

    def _collect(
        self, running: Mapping[str, Worker], threads: int, samples: Samples
    ) -> dict[str, str]:
        """Enter what one bout gave."""
        lost = {}
        for case, of in samples.items():
            for name, times in of.items():
                self.logs[name].samples[threads, case].append(times)
        for name, worker in running.items():
            try:
                self.logs[name].memory.append(worker.peak_memory())
                self.logs[name].load_ms.append(worker.load_ms)
            except EngineError as error:
                lost[name] = f"does not run: {error}"
        return lost

    def _record(self, place: dict[str, object]) -> DuelRecord:
        ran = {name: log for name, log in self.logs.items() if log.outcome == "ran"}
        baseline = next((n for n in self.challenge.against if n in ran), None)
        known = self.challenge.source is not None
        return DuelRecord(
            environment=place,
            plan=self.challenge.plan,
            inputs="the model's" if known else "made up",
            baseline=baseline,
            engines=[self._row(name, log) for name, log in self.logs.items()],
            cases=[
                self._case(threads, reference, ran, baseline)
                for threads in self.challenge.plan.threads
                for reference in self.references.values()
            ],
        )

    def _case(
        self, threads: int, reference: Reference, ran: Mapping[str, EngineLog], baseline: str | None
    ) -> BenchCase:
        label, best = size_label(reference.sizes), self.best[threads].milliseconds
        looks = self.looks[threads, label]
        calm = [[is_calm(look, best) for look in bout] for bout in looks]
        few = sum(map(sum, calm)) < ENOUGH * self.challenge.plan.bouts * self.challenge.plan.rounds
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
            sizes=reference.sizes,
            results=results,
            canary_ms=looks,
            calm=calm,
            all_count=few,
        )

    def _row(self, name: str, log: EngineLog) -> EngineRow:
        ran = log.outcome == "ran"
        return EngineRow(
            name=name,
            subject=name in self.challenge.artifacts,
            outcome=log.outcome,
            reason=log.reason,
            bytes=self.engine(name, 1).size() if ran else None,
            load_ms=Spread.of(log.load_ms) if ran else None,
            peak_memory_bytes=Spread.of(log.memory) if ran else None,
        )


def fidelity(reference: Reference, got: Sequence[Array]) -> Fidelity | None:
    """How near outputs are to the original's; None where they are not the same outputs."""
    want = reference.outputs
    if want is None or [a.shape for a in got] != [a.shape for a in want.values()]:
        return None
    found = drift(dict(zip(want, got)), want)
    return Fidelity(**found.rounded())
