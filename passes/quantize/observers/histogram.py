"""A histogram that widens its bins when values fall outside of it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from strop.passes.quantize.observers.extremes import extremes
from strop.passes.quantize.observers.observer import Observer

BINS = 4096
# That many neighbours are all bins on one side of 0; int64 still holds it.
_ALL = 1 << 62


class Histogram:
    """Counts of values in at most ``BINS`` bins of equal width.

    Widths are powers of two, and edges multiples of the width: so two neighbours always merge into
    one bin of the next width, and no count is ever split.

    Attributes:
        width: of a bin.
        first: the first bin spans first * width to (first + 1) * width.
        counts: values in each bin, float64.
        low: the least value seen.
        high: the largest.
    """

    def __init__(self) -> None:
        self.width, self.first = 0.0, 0
        self.counts = torch.zeros(0, dtype=torch.float64)
        self.low, self.high = math.inf, -math.inf

    def add(self, values: Tensor) -> None:
        """Count values; float, of any shape."""
        low, high = extremes(values)
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._widen()
        first, last = self._bin(low), self._bin(high)
        # Exact: the width is a power of two, and float32 holds whole numbers up to 2^24.
        wide = values if max(-first, last) < 1 << 24 else values.double()
        places = (wide / self.width).floor() - first
        count = last + 1 - first
        found = torch.histc(places.flatten(), count, 0, count)
        self.counts[first - self.first :][:count] += found

    def centers(self) -> Tensor:
        """The middle of every bin, float64."""
        return (torch.arange(len(self.counts), dtype=torch.float64) + self.first + 0.5) * self.width

    def _bin(self, value: float) -> int:
        return math.floor(value / self.width)

    def _widen(self) -> None:
        """Make room for all values from the least to the largest one."""
        width = max(self.width, _width(self.low, self.high))
        if self.width and width > self.width:
            self._merge(min(int(width / self.width), _ALL))
        self.width = width
        while self._bin(self.high) - self._bin(self.low) >= BINS:
            self._merge(2)
            self.width *= 2
        self._extend(self._bin(self.low), self._bin(self.high))

    def _merge(self, factor: int) -> None:
        """Merge as many neighbours into one."""
        if not len(self.counts):
            return
        first = self.first // factor
        places = (torch.arange(len(self.counts)) + self.first) // factor - first
        merged = torch.zeros(int(places[-1]) + 1, dtype=torch.float64)
        self.counts, self.first = merged.index_add_(0, places, self.counts), first

    def _extend(self, first: int, last: int) -> None:
        """Add empty bins at both ends."""
        if len(self.counts):
            first, last = min(first, self.first), max(last, self.first + len(self.counts) - 1)
        wider = torch.zeros(last + 1 - first, dtype=torch.float64)
        if len(self.counts):
            wider[self.first - first :][: len(self.counts)] = self.counts
        self.counts, self.first = wider, first


def _width(low: float, high: float) -> float:
    """The least power of two with which the bins reach from one value to another."""
    # Equal values need a width, too, and one that their own precision can tell apart.
    size = max(high - low, max(abs(low), abs(high)) * torch.finfo(torch.float32).eps, 1e-30)
    return 2.0 ** math.ceil(math.log2(size / (BINS - 1)))


class HistogramObserver(Observer):
    """An observer that chooses by a histogram of all values."""

    def __init__(self) -> None:
        self._seen = Histogram()

    def add(self, values: Tensor) -> None:
        """See the values of one more batch."""
        self._seen.add(values)
