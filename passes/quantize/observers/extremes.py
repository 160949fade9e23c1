"""The whole range of what was seen."""

from __future__ import annotations

import math

from torch import Tensor

from strop.passes.quantize.grid import Grid
from strop.passes.quantize.observers.observer import Observer, Range


class MinMax(Observer):
    """The least and the largest value of all batches: nothing is cut off."""

    def __init__(self) -> None:
        self.low, self.high = math.inf, -math.inf

    def add(self, values: Tensor) -> None:
        """See the values of one more batch."""
        low, high = extremes(values)
        self.low, self.high = min(self.low, low), max(self.high, high)

    def range(self, grid: Grid) -> Range:
        """The extremes."""
        return self.low, self.high


def extremes(values: Tensor) -> Range:
    """The least and the largest of some values."""
    low, high = values.aminmax()
    return float(low), float(high)
