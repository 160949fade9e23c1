"""A duel: artifacts and peers, each in a process of its own, timed on the same inputs.

A duel consists of bouts. For each bout all engines are started anew, in another order: a process
that got a bad place in memory stays slow for as long as it lives, and must not decide a comparison.
A bout consists of rounds. In each round every engine is timed at every case, one after the other.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from strop.bench.harness.bout import Bout, Samples
from strop.bench.harness.canary import canary
from strop.bench.harness.decoding import Loop
from strop.bench.harness.engines import Engine, OnnxFile, OpenVino
from strop.bench.harness.listener import Listener
from strop.bench.harness.log import DuelLog
from strop.bench.harness.peers import Preparations
from strop.bench.harness.setup import DuelSetup, references_of
from strop.bench.harness.workers import Worker, workers
from strop.bench.processes.spawned import EngineError
from strop.bench.records.machine import environment
from strop.bench.records.record import DuelRecord


def duel(setup: DuelSetup, listener: Listener) -> DuelRecord:
    """Prepare, measure and compare.

    Raises:
        UsageError: the original model cannot be loaded or run.
    """
    with prepared(setup, listener) as session:
        return session.run(listener)


@contextmanager
def prepared(setup: DuelSetup, listener: Listener) -> Iterator[DuelSession]:
    """Compute the references and prepare the peers; the files live as long as the block.

    Raises:
        UsageError: the original model cannot be loaded or run.
    """
    with tempfile.TemporaryDirectory(prefix="strop-bench-") as folder:
        listener.stage("running the original")
        log = DuelLog(setup, references_of(setup))
        preparations = Preparations(
            setup.peers, setup.source or "", setup.program, Path(folder), setup.plan.timeout
        )
        session = DuelSession(setup, log, preparations)
        for name in setup.against:
            listener.stage(f"preparing {name}")
            session.prepare(name)
        yield session


class DuelSession:
    """A duel under way.

    Attributes:
        setup: what is compared, and how.
        log: what is known so far.
    """

    def __init__(self, setup: DuelSetup, log: DuelLog, preparations: Preparations) -> None:
        self.setup, self.log = setup, log
        self._preparations = preparations

    def prepare(self, name: str) -> None:
        """Prepare a peer, or put on record why it cannot take part."""
        if lack := self.setup.peers[name].lacks():
            self.log.drop(name, "missing", lack)
        elif failure := self._preparations.prepare(name):
            self.log.drop(name, "failed", failure)

    def engines(self, threads: int) -> list[Engine]:
        """Those that still take part."""
        return [self._engine(name, threads) for name in self.log.taking_part]

    def _engine(self, name: str, threads: int) -> Engine:
        if name in self.setup.artifacts and self.setup.texts:
            return Loop(name, threads, self.setup.artifacts[name].path)
        if name in self.setup.artifacts:
            kind = OpenVino if name in self.setup.in_openvino else OnnxFile
            return kind(name, threads, self.setup.artifacts[name].path_of(self.setup.program))
        return self._preparations.engine(name, threads)

    def run(self, listener: Listener) -> DuelRecord:
        """All bouts with all numbers of threads, and what came of them."""
        plan = self.setup.plan
        place = environment(max(plan.threads))
        done, total = 0, plan.bouts * len(plan.threads) * plan.rounds * len(self.log.references)

        def tick() -> None:
            nonlocal done
            done += 1
            listener.share(done / total)

        for number in range(plan.bouts):
            for threads in plan.threads:
                listener.stage(f"bout {number + 1} of {plan.bouts}, threads: {threads}")
                for name, reason in self._bout(number, threads, tick).items():
                    self.log.drop(name, "failed", reason)
        return self.log.record(place, {e.name: e.size() for e in self.engines(1)})

    def _bout(self, number: int, threads: int, tick: Callable[[], None]) -> dict[str, str]:
        """Start all engines anew and time them; why engines that failed did."""
        plan, order = self.setup.plan, self.engines(threads)
        random.Random(number).shuffle(order)
        feeds = {case: reference.feeds for case, reference in self.log.references.items()}
        with (
            canary(threads, self.log.best[threads], plan.patience) as watch,
            workers(order, feeds, plan.timeout) as (running, failed),
        ):
            failed |= self._compare_outputs(running)
            bout = Bout(running, list(feeds), plan, watch, tick)
            samples = bout.run()
            self.log.add_looks(threads, bout.looks)
            left = {name: w for name, w in running.items() if name not in bout.failed}
            return failed | bout.failed | self._collect(left, threads, samples)

    def _compare_outputs(self, running: dict[str, Worker]) -> dict[str, str]:
        """Compare outputs with the original's, once; engines that do not run are left out."""
        failed = {}
        for name, worker in list(running.items()):
            try:
                for case in self.log.not_compared(name):
                    self.log.add_outputs(name, case, worker.outputs(case))
            except EngineError as error:
                failed[name] = f"does not run: {error}"
                del running[name]
        return failed

    def _collect(
        self, running: Mapping[str, Worker], threads: int, samples: Samples
    ) -> dict[str, str]:
        """Enter what one bout gave; why engines that no longer answer do not."""
        self.log.add_samples(threads, samples)
        failed = {}
        for name, worker in running.items():
            try:
                self.log.add_start(name, worker.load_ms, worker.peak_memory())
            except EngineError as error:
                failed[name] = f"does not run: {error}"
        return failed
