"""A weight whose whole numbers a method chooses, and what it chose."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from strop.passes.quantize.methods.moments import Moments

strop = torch.ops.strop


@dataclass(frozen=True)
class Settings:
    """Options of methods; each reads its own.

    Attributes:
        damping: share of the mean of the diagonal that GPTQ adds to it.
        act_order: GPTQ rounds the columns with the largest activations first.
        steps: of AdaRound.
    """

    damping: float = 0.01
    act_order: bool = True
    steps: int = 300


@dataclass(frozen=True)
class Layer:
    """A weight to round.

    Attributes:
        weight: float32 [out, in].
        groups: in how many groups of equal length each row is cut.
        bits: of a whole number.
        symmetric: whether the zero point is half of the range in every group.
        moments: of what the layer is multiplied with; None for methods that look at no data.
    """

    weight: Tensor
    groups: int
    bits: int
    symmetric: bool
    moments: Moments | None = None

    def covering(self) -> tuple[Tensor, Tensor | None]:
        """The scales, [out, groups], that cover every group, and zero points, int32."""
        scale = strop.group_scale(self.weight, self.groups, self.bits, self.symmetric)
        if self.symmetric:
            return scale, None
        return scale, strop.group_zero_point(self.weight, scale, self.bits)

    def blocks(self) -> Tensor:
        """The second moments within each group, float32 [groups, size, size].

        d^T B d is the squared error of the outputs where one group of a row changes by d. A part of
        the identity is added: where nothing was seen, each weight counts alike.
        """
        assert self.moments is not None
        mean = self.moments.mean()
        size = len(mean) // self.groups
        parts = mean.unflatten(0, (self.groups, size)).unflatten(2, (self.groups, size))
        inside: Tensor = parts.diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        least = float(mean.diagonal().mean()) * 1e-6 + 1e-30
        return (inside + least * torch.eye(size, dtype=torch.float64)).float()

    def rounded(self, weight: Tensor, scale: Tensor, zero_point: Tensor | None) -> Tensor:
        """A weight of this layer's shape on a grid, in float."""
        made: Tensor = strop.on_grid(weight, scale, zero_point, self.bits)
        return made


@dataclass(frozen=True)
class Chosen:
    """What a method chose.

    Attributes:
        scale: float32 [out, groups], not 0; below 0 where a symmetric grid is turned round.
        zero_point: int32 [out, groups]; None where the grid is symmetric.
        weight: float32 [out, in], that rounds to the whole numbers chosen; None for the layer's
            own.
    """

    scale: Tensor
    zero_point: Tensor | None
    weight: Tensor | None = None
