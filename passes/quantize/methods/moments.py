"""Second moments of what layers are multiplied with; memory does not grow with the data."""

from __future__ import annotations

import torch
from torch import Tensor


class Moments:
    """The sum of x x^T over all rows x of the inputs of a layer.

    Attributes:
        products: float64 [in, in].
        rows: how many rows were seen.
    """

    def __init__(self) -> None:
        self.products = torch.zeros((), dtype=torch.float64)
        self.rows = 0

    def add(self, values: Tensor) -> None:
        """See the values of one more batch: float [..., in]."""
        rows = values.detach().reshape(-1, values.shape[-1]).double()
        self.products = self.products + rows.t() @ rows
        self.rows += len(rows)

    def mean(self) -> Tensor:
        """The mean of x x^T: float64 [in, in]."""
        return self.products / max(self.rows, 1)

    def divided_by(self, scale: Tensor) -> Moments:
        """The moments of the same rows, their columns divided by a scale, [in] float64."""
        made = Moments()
        made.products = self.products / (scale[:, None] * scale)
        made.rows = self.rows
        return made

    def error(self, difference: Tensor) -> Tensor:
        """The mean squared change of outputs, summed over them, for a change of the weight.

        Args:
            difference: [..., out, in] float.
        """
        moved = difference.double() @ self.mean()
        return (moved * difference.double()).sum((-2, -1))
