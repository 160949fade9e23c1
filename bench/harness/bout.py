"""One bout of a duel: rounds in which the engines are timed one after the other."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from strop.bench.harness.canary import Canary
from strop.bench.harness.workers import Worker
from strop.bench.processes.spawned import EngineError
from strop.bench.records.record import Plan

Samples = dict[str, dict[str, list[float]]]
"""Case -> engine -> the median milliseconds of each of its rounds."""


class Bout:
    """Engines that are running, timed on the same inputs.

    Args:
        running: the engines by name.
        cases: names of inputs that the engines were given.
        plan: how many rounds, and how long an engine is timed in each.
        canary: looks at the machine around every round.
        tick: called when a planned round of a case is over.

    Attributes:
        looks: case -> what the canary took around each round, the longer of before and after.
        failed: why engines that stopped answering did; they have no samples.
    """

    def __init__(
        self,
        running: Mapping[str, Worker],
        cases: Sequence[str],
        plan: Plan,
        canary: Canary,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        self.failed: dict[str, str] = {}
        self.looks: dict[str, list[float]] = {case: [] for case in cases}
        self._left = dict(running)
        self._samples: Samples = {case: {name: [] for name in running} for case in cases}
        self._plan, self._canary, self._tick = plan, canary, tick

    def run(self) -> Samples:
        """Time every engine at every case in every round.

        All cases come up in every round, so that a slow minute of the machine falls on all of them
        alike. Rounds in which the machine was disturbed are repeated, as long as patience lasts.
        """
        counts = {
            (name, case): _count(self._times(name, case, 3), self._plan.turn_seconds)
            for case in self.looks
            for name in list(self._left)
        }
        for _ in range(self._plan.rounds):
            for case in self.looks:
                self._round(case, counts)
                self._tick()
        patience = self._canary.patience
        while self._left and patience.left > 0 and (again := self._disturbed()):
            with patience.spent():
                self._round(again, counts)
        return {c: {n: of[n] for n in self._left} for c, of in self._samples.items()}

    def _disturbed(self) -> str | None:
        """The case with the fewest calm rounds, if that is fewer than were planned."""
        calm = {c: sum(map(self._canary.best.calm, of)) for c, of in self.looks.items()}
        fewest = min(calm, key=calm.__getitem__)
        return fewest if calm[fewest] < self._plan.rounds else None

    def _round(self, case: str, counts: Mapping[tuple[str, str], int]) -> None:
        if not self._left:
            return
        before = self._canary.settle()
        for name in _rotated(list(self._left), len(self.looks[case])):
            if times := self._times(name, case, counts[name, case]):
                self._samples[case][name].append(1000 * statistics.median(times))
        self.looks[case].append(max(before, self._canary.look()))

    def _times(self, name: str, case: str, count: int) -> list[float]:
        """Seconds of each of ``count`` runs; none if the engine does not run."""
        try:
            return self._left[name].times(case, count)
        except EngineError as error:
            self.failed[name] = f"does not run: {error}"
            del self._left[name]
            return []


def _count(times: Sequence[float], seconds: float) -> int:
    """How many runs fit into the time that an engine has in one round."""
    return max(3, min(200, int(seconds / min(times)))) if times else 0


def _rotated(names: list[str], by: int) -> list[str]:
    start = by % len(names) if names else 0
    return names[start:] + names[:start]
