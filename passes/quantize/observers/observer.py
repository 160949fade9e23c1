"""What all observers do: see the values of batch after batch, then say what range to keep."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor

from strop.passes.quantize.grid import Grid

Range = tuple[float, float]
"""The least and the largest value that a grid should hold."""


class Observer(ABC):
    """Sees all values that one place of a program takes; its memory does not grow with them."""

    @abstractmethod
    def add(self, values: Tensor) -> None:
        """See the values of one more batch: float, of any shape, all of them finite."""

    @abstractmethod
    def range(self, grid: Grid) -> Range:
        """The range to keep, for values that will be rounded to ``grid``."""
