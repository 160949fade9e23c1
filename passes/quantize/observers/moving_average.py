"""Extremes of batches, averaged with weights that fade.

Jacob et al., Quantization and Training of Neural Networks (2018), section 3.1.
"""

from __future__ import annotations

from torch import Tensor

from strop.passes.quantize.grid import Grid
from strop.passes.quantize.observers.extremes import extremes
from strop.passes.quantize.observers.observer import Observer, Range

# The weight of a new batch: after 70 batches half of the average comes from the last 70; torch's.
SHARE = 0.01


class MovingAverage(Observer):
    """low <- low + SHARE * (min - low) at every batch, from the first batch's minimum; high alike.

    One batch with an outlier moves the range little.
    """

    def __init__(self) -> None:
        self._range: Range | None = None

    def add(self, values: Tensor) -> None:
        """See the values of one more batch."""
        found = extremes(values)
        low, high = self._range or found
        self._range = low + SHARE * (found[0] - low), high + SHARE * (found[1] - high)

    def range(self, grid: Grid) -> Range:
        """The averages."""
        assert self._range is not None, "no values were seen"
        return self._range
