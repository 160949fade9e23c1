"""The channels of what a layer reads on data: the range of each, and a sample of the rows."""

from __future__ import annotations

import torch
from torch import Tensor


class Channels:
    """The channels of one value, those along its last axis, batch by batch.

    Memory does not grow with the number of batches. The sample is of all rows alike: every row
    draws a number, and those with the least stay.

    Attributes:
        low: the least value of each; float [channels], empty before the first row.
        high: the largest.
        rows: at most so many as are kept; float [rows, channels].
    """

    def __init__(self, kept: int, seed: int) -> None:
        self.low = self.high = self.rows = torch.empty(0)
        self._kept = kept
        self._random = torch.Generator().manual_seed(seed)
        self._draws = torch.empty(0, dtype=torch.float64)

    def add(self, values: Tensor) -> None:
        """See the rows of one more batch, [..., channels]."""
        rows = values.detach().flatten(0, -2)
        low, high = rows.aminmax(dim=0)
        draws = torch.rand(len(rows), generator=self._random, dtype=torch.float64)
        if len(self.rows):
            low, high = torch.minimum(low, self.low), torch.maximum(high, self.high)
            rows, draws = torch.cat([self.rows, rows]), torch.cat([self._draws, draws])
        least = draws.argsort()[: self._kept]
        self.low, self.high = low, high
        self.rows, self._draws = rows[least], draws[least]

    @property
    def top(self) -> Tensor:
        """The largest absolute value of each channel."""
        return torch.maximum(self.low.abs(), self.high.abs())
