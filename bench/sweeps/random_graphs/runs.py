"""The outcomes of random models, each in a process of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from strop.bench.processes.forks import ForkedCall, forked
from strop.bench.sweeps.operators.outcomes import SampleOutcome, outcome
from strop.bench.sweeps.random_graphs.drawing import Graph, draw

# CPU seconds for one graph; few take more than two.
LONGEST = 120.0


@dataclass(frozen=True)
class GraphResult:
    """The outcome of one graph.

    Attributes:
        seed: the seed that it was drawn with.
        kind: ok, wrong, run (the file does not run), refused, traceback, not comparable, or not
            drawn (NNSmith fails, or torch does on the inputs that it tries).
        reason: the class of reasons.
        detail: the message.
        operators: what it is made of.
    """

    seed: int
    kind: str
    reason: str
    detail: str
    operators: tuple[str, ...]


def row(kinds: list[Any], number: int) -> GraphResult:
    """Draw, build, run and compare one graph."""
    try:
        sample = draw(kinds, number)
    except Exception as error:  # neither NNSmith's solver nor torch's allocator is on trial
        return GraphResult(number, "not drawn", type(error).__name__, str(error), ())
    assert isinstance(sample.module, Graph)
    found: SampleOutcome = outcome(sample)
    does_not_run = found.kind == "wrong" and "does not run" in found.reason
    names = (step[0].__class__.__name__ for step in sample.module.steps)
    kind = "run" if does_not_run else found.kind
    return GraphResult(number, kind, found.reason, found.detail, tuple(names))


def rows(kinds: list[Any], numbers: Iterable[int], jobs: int) -> Iterator[GraphResult]:
    """The rows, each of a process of its own.

    NNSmith's solver remembers: what it draws for a seed depends on what it drew before.
    """
    calls = (ForkedCall(partial(row, kinds, n), LONGEST, n) for n in numbers)
    for ended in forked(calls, jobs):
        if ended.how == "returned":
            yield ended.value
        else:
            yield GraphResult(
                ended.about, "traceback", f"the process {ended.how}", ended.value or "", ()
            )
