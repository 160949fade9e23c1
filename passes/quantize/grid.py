"""The whole numbers that values are rounded to, and the scale that fits a range of values."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from strop.compiler.util.errors import UsageError


@dataclass(frozen=True)
class Grid:
    """What values are rounded to: scale * (whole number - zero point).

    Attributes:
        bits: of a whole number, 2 to 8.
        symmetric: as many steps below zero as above, and a zero point of 0; otherwise the whole
            numbers are unsigned and the zero point is one of them.
    """

    bits: int = 8
    symmetric: bool = True

    def __post_init__(self) -> None:
        """Refuse what no target stores.

        Raises:
            UsageError: bits is out of its range.
        """
        if not 2 <= self.bits <= 8:
            raise UsageError(f"bits is {self.bits}; it must be from 2 to 8")

    @property
    def low(self) -> int:
        """The lowest whole number."""
        return -self.high if self.symmetric else 0

    @property
    def high(self) -> int:
        """The highest whole number."""
        return (1 << (self.bits - 1)) - 1 if self.symmetric else (1 << self.bits) - 1

    def parameters(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The scale and the zero point that cover a range, which is widened to hold 0.

        Jacob et al., Quantization and Training of Neural Networks (2018), section 3: the real 0 is
        a whole number exactly. A range of nothing has the scale 1.

        Args:
            low: the least values, float, of any shape.
            high: the largest, of the same shape.

        Returns:
            Scales above 0, in the dtype of ``low``, and zero points, int32; both of its shape.
        """
        low, high = low.clamp(max=0), high.clamp(min=0)
        width = torch.maximum(-low, high) if self.symmetric else high - low
        width = width / self.high
        scale = torch.where(width > 0, width, torch.ones_like(width))
        if self.symmetric:
            return scale, torch.zeros_like(scale, dtype=torch.int32)
        return scale, (-low / scale).round().clamp(0, self.high).to(torch.int32)
