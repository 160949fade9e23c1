"""Weights rounded so that a layer's outputs on data change least, and biases that make up for it.

The error of rounding is a weight's change times what it is multiplied with. Its mean over the data
goes into the bias (Nagel et al., Data-Free Quantization, 2019, section 4.2); the rest is made small
by GPTQ, on what inputs have besides their mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.fx.node import Node

from strop.compiler.ir.constants import evaluate, weight_names
from strop.compiler.ir.nodes import arguments
from strop.compiler.ir.program import Program
from strop.compiler.util.errors import UsageError
from strop.passes.quantize.grid import Grid
from strop.passes.quantize.methods.in_turn import factor, rounded_in_turn
from strop.passes.quantize.patches import patches

# Rows of one batch that are looked at.
_ROWS = 2048
# In sums of more products, errors cancel by themselves, and the matrices become large.
_MOST_COLUMNS = 1152
_DAMPING = 0.01


@dataclass
class LayerInputs:
    """Sums over the rows that a layer multiplies with its weights; nothing grows with the data.

    Attributes:
        layer: whose input is seen.
        sums: float64 [groups, columns].
        products: float64 [groups, columns, columns]; 0 for a layer of many columns.
        rows: how many were seen.
    """

    layer: Node
    sums: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    products: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    rows: int = 0

    def add(self, values: Tensor) -> None:
        """See the input of one more batch."""
        seen = patches(self.layer, values, _ROWS)
        self.sums = self.sums + seen.sum(1, dtype=torch.float64)
        if seen.shape[2] <= _MOST_COLUMNS:
            exact = seen.double()
            self.products = self.products + exact.mT @ exact
        self.rows += seen.shape[1]

    @property
    def mean(self) -> Tensor:
        """The mean row of each group, [groups, columns]."""
        return self.sums / self.rows

    @property
    def covariance(self) -> Tensor | None:
        """What rows have besides their mean: [groups, columns, columns]."""
        if not self.products.dim():
            return None
        mean = self.mean
        found = self.products / self.rows - mean[:, :, None] * mean[:, None, :]
        # Of constant inputs nothing is left but the noise of the subtraction.
        noise = 1e-9 * self.products.diagonal(dim1=1, dim2=2) / self.rows
        return found + torch.diag_embed(noise)


@dataclass(frozen=True)
class RoundedLayer:
    """How a layer is rounded.

    Attributes:
        weight: on its grid, float32, in the shape of the layer's.
        scale: float32 [out].
        shift: float32 [out], which the bias gains.
    """

    weight: Tensor
    scale: Tensor
    shift: Tensor

    @staticmethod
    def of(program: Program, seen: LayerInputs, grid: Grid) -> RoundedLayer:
        """The weight of a layer rounded to a symmetric grid with a scale per output channel.

        Raises:
            UsageError: it holds NaN or infinity.
        """
        weight = finite_weight(seen.layer, program)
        top = weight.flatten(1).abs().amax(1)
        scale, _ = grid.parameters(-top, top)
        groups = len(seen.sums)
        whole = weight.double().reshape(groups, len(weight) // groups, -1)
        steps = scale.double().reshape(groups, -1)
        made = _rounded(whole, steps, seen.covariance, grid)
        shift = ((whole - made) @ seen.mean[:, :, None]).flatten()
        return RoundedLayer(made.reshape(weight.shape).float(), scale, shift.float())

    def tensors(self, name: str) -> dict[str, Tensor]:
        """By name, for what a pass learns."""
        return {f"{name}.{key}": value for key, value in vars(self).items()}

    @staticmethod
    def from_tensors(name: str, tensors: Mapping[str, Tensor]) -> RoundedLayer | None:
        """What ``tensors`` gave, if it is there."""
        if f"{name}.weight" not in tensors:
            return None
        return RoundedLayer(*(tensors[f"{name}.{key}"] for key in ("weight", "scale", "shift")))


def finite_weight(layer: Node, program: Program) -> Tensor:
    """The values of a layer's weight.

    Raises:
        UsageError: one is NaN or infinite.
    """
    weight = arguments(layer)["weight"]
    values = evaluate(weight, program)
    if not bool(values.isfinite().all()):
        name = weight_names(weight)[0]
        raise UsageError(f"weight '{name}' holds NaN or infinity, which no scale fits")
    return values


def _rounded(weight: Tensor, scale: Tensor, covariance: Tensor | None, grid: Grid) -> Tensor:
    """A weight on its grid, [groups, out of a group, columns] float64.

    Args:
        weight: of that shape.
        scale: [groups, out of a group].
        covariance: [groups, columns, columns]; None rounds to nearest.
        grid: symmetric.
    """

    def nearest(column: Tensor, steps: Tensor) -> Tensor:
        return (column / steps).round().clamp(grid.low, grid.high) * steps

    if covariance is None:
        return nearest(weight, scale[..., None])
    # The columns that weigh most are rounded first, while all others can make up for them.
    weights = covariance.diagonal(dim1=1, dim2=2).sum(0)
    order = torch.sort(weights, descending=True, stable=True).indices
    found = factor(covariance[:, order][:, :, order], _DAMPING)
    made = torch.empty_like(weight)
    made[..., order] = rounded_in_turn(
        weight[..., order], found, lambda column, _: nearest(column, scale)
    )
    return made
