"""The range that changes the distribution of the values least."""

from __future__ import annotations

import torch
from torch import Tensor

from strop.passes.quantize.grid import Grid
from strop.passes.quantize.observers.candidates import best_range, steps_of
from strop.passes.quantize.observers.histogram import Histogram, HistogramObserver
from strop.passes.quantize.observers.observer import Range


class Entropy(HistogramObserver):
    """Least Kullback-Leibler divergence of the rounded distribution from that of the values.

    Migacz, 8-bit Inference with TensorRT (2017): values outside of the range count at its ends in
    the one, and not at all in the other, whose counts are spread over the bins of each step. The
    many zeros of a rectifier do not count, since 0 is never rounded.
    """

    def range(self, grid: Grid) -> Range:
        """The best of the ranges that are tried."""
        seen = self._seen
        centers, counts = seen.centers(), _without_zeros(seen)

        def divergence(ends: Range) -> float:
            scale, zero = grid.parameters(*torch.tensor(ends, dtype=torch.float64))
            inside = (centers >= ends[0] - seen.width) & (centers <= ends[1] + seen.width)
            steps = steps_of(centers[inside], scale, zero, grid.low, grid.high) - grid.low
            return _divergence(counts, inside, steps.long(), grid.high - grid.low + 1)

        return best_range(seen.low, seen.high, divergence)


def _without_zeros(seen: Histogram) -> Tensor:
    """Counts in which the bin of 0 holds as many values as the one after it."""
    counts, zero = seen.counts.clone(), -seen.first
    if 0 <= zero < len(counts) - 1:
        counts[zero] = counts[zero + 1]
    return counts


def _divergence(counts: Tensor, inside: Tensor, steps: Tensor, levels: int) -> float:
    """KL(values || rounded values), over the bins inside of a range.

    Args:
        counts: [bins] float64.
        inside: [bins] bool, one run of bins.
        steps: the step of each bin inside, int64.
        levels: the number of steps.
    """
    places = inside.nonzero().flatten()
    if not len(places):
        return float("inf")
    kept = counts[inside]
    wanted = kept.clone()
    wanted[0] += counts[: places[0]].sum()
    wanted[-1] += counts[places[-1] + 1 :].sum()
    filled = (kept > 0).double()
    totals = torch.zeros(levels, dtype=torch.float64)
    shared = totals.index_add(0, steps, kept) / totals.index_add(0, steps, filled).clamp(min=1)
    got = filled * shared[steps]
    if not float(got.sum()):
        return float("inf")
    # A value where the other distribution has none would make the sum infinite.
    got = (got / got.sum()).clamp(min=1e-9)
    wanted = wanted / wanted.sum()
    return float(torch.special.xlogy(wanted, wanted / got).sum())
