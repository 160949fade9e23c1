"""The same measurement over several seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


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

    def __str__(self) -> str:
        return f"{self.mean:.4g} ± {self.deviation:.2g}"
