"""The range with the least squared error of rounding."""

from __future__ import annotations

import torch

from strop.passes.quantize.grid import Grid
from strop.passes.quantize.observers.candidates import best_range, steps_of
from strop.passes.quantize.observers.histogram import HistogramObserver
from strop.passes.quantize.observers.observer import Range


class SquaredError(HistogramObserver):
    """Least sum of (x - rounded x)^2 over all values, each taken for the middle of its bin."""

    def range(self, grid: Grid) -> Range:
        """The best of the ranges that are tried."""
        seen = self._seen
        centers = seen.centers()

        def error(ends: Range) -> float:
            scale, zero = grid.parameters(*torch.tensor(ends, dtype=torch.float64))
            rounded = (steps_of(centers, scale, zero, grid.low, grid.high) - zero) * scale
            return float(seen.counts @ (centers - rounded).square())

        return best_range(seen.low, seen.high, error)
