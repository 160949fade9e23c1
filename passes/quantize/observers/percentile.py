"""A range that leaves out a fixed share of the values."""

from __future__ import annotations

import torch

from strop.passes.quantize.grid import Grid
from strop.passes.quantize.observers.histogram import HistogramObserver
from strop.passes.quantize.observers.observer import Range


class Percentile(HistogramObserver):
    """The range that holds ``kept`` percent of all values; as much is left out on either side."""

    def __init__(self, kept: float = 99.999) -> None:
        super().__init__()
        self._kept = kept

    def range(self, grid: Grid) -> Range:
        """The edges of the bins at which the shares are reached."""
        seen = self._seen
        below = seen.counts.cumsum(0) / seen.counts.sum()
        left_out = (100 - self._kept) / 200
        first = int(torch.searchsorted(below, left_out, right=True))
        last = int(torch.searchsorted(below, 1 - left_out))
        low, high = (seen.first + first) * seen.width, (seen.first + last + 1) * seen.width
        return max(low, seen.low), min(high, seen.high)
