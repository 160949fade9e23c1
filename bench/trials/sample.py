"""The same measurement over several seeds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, TypeVar

import typer

from strop.bench.records.figures import Figure, console

Seeds = Annotated[int, typer.Option(min=1, help="How many times, with other weights.")]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Sample:
    """Mean and spread of what was measured, in its unit.

    Attributes:
        values: one for each seed.
        mean: of the values.
        deviation: the standard deviation, with n - 1; 0 of one value.
    """

    values: tuple[float, ...]
    mean: float
    deviation: float

    @staticmethod
    def of(values: Sequence[float]) -> Sample:
        """Mean and spread of at least one value."""
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        return Sample(tuple(values), statistics.fmean(values), spread)

    def minus(self, other: Sample) -> Sample:
        """The differences, seed by seed: what both share drops out of the spread."""
        return Sample.of([a - b for a, b in zip(self.values, other.values, strict=True)])

    def figure(
        self, what: str, at_least: float | None = None, at_most: float | None = None
    ) -> Figure:
        """The mean as a figure, whose words hold the spread."""
        spread = f"{what} (mean of {len(self.values)} seeds, ± {self.deviation:.2g})"
        return Figure(spread, self.mean, at_least, at_most)


def for_each_seed(what: str, trial: Callable[[int], Result], seeds: Iterable[int]) -> list[Result]:
    """What a trial gives for each seed.

    Args:
        what: it is, for the user who waits.
        trial: the measurement of one seed.
        seeds: in order.
    """
    made = []
    for seed in seeds:
        with console.status(f"{what}: seed {seed}"):
            made.append(trial(seed))
    return made


def samples(runs: Sequence[Mapping[str, float]]) -> dict[str, Sample]:
    """Every measurement by its name, from one run for each seed."""
    return {name: Sample.of([run[name] for run in runs]) for name in runs[0]}
