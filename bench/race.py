"""Rounds: engines take turns on the same inputs, and who begins changes from round to round."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from strop.bench.engines import Worker
from strop.bench.process import EngineError

Samples = dict[str, dict[str, list[float]]]
"""Case -> engine -> the median milliseconds of each of its rounds."""


def race(
    running: Mapping[str, Worker],
    cases: Sequence[str],
    rounds: int,
    seconds: float,
    tick: Callable[[], None] = lambda: None,
) -> tuple[Samples, dict[str, str]]:
    """Let the engines take turns at each case in turn.

    Every case comes up in every round: a slow minute of the machine falls on all of them alike.

    Args:
        running: the engines by name.
        cases: names of inputs that the engines were given.
        rounds: how often each engine has its turn at each case.
        seconds: how long a turn takes.
        tick: called when a case of a round is over.

    Returns:
        the samples, and why engines that fell out did; they have no samples.
    """
    left, fallen = dict(running), dict[str, str]()

    def turn(name: str, case: str, count: int) -> list[float]:
        if name not in left:
            return []
        try:
            return left[name].times(case, count)
        except EngineError as error:
            fallen[name] = f"does not run: {error}"
            del left[name]
            return []

    counts = {
        (name, case): _count(turn(name, case, 3), seconds) for case in cases for name in running
    }
    samples: Samples = {case: {name: [] for name in running} for case in cases}
    for number in range(rounds):
        for case in cases:
            for name in _rotated(list(left), number):
                times = turn(name, case, counts[name, case])
                samples[case][name] += [1000 * statistics.median(times)] if times else []
            tick()
    return {c: {n: of[n] for n in left} for c, of in samples.items()}, fallen


def _count(times: Sequence[float], seconds: float) -> int:
    """How many runs fit into one turn."""
    return max(3, min(200, int(seconds / min(times)))) if times else 0


def _rotated(names: list[str], by: int) -> list[str]:
    start = by % len(names) if names else 0
    return names[start:] + names[:start]
