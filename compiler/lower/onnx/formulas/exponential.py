"""The exponential of a matrix."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from strop.compiler.lower.onnx.formulas.matrices import identity
from strop.compiler.lower.onnx.formulas.registry import formula
from strop.compiler.lower.onnx.formulas.repeat import repeat

aten = torch.ops.aten
# The first term left out is below 1 / 19!, less than the precision of float64 at 1.
_DEGREE = 18
_MOST_SQUARINGS = 64


def _term(k: Tensor, state: Sequence[Tensor], fixed: Sequence[Tensor]) -> list[Tensor]:
    """Horner's rule: 1 + x/18, then 1 + x/17 (1 + x/18), and so on."""
    x, one = fixed
    return [one + (x @ state[0]) / (_DEGREE - k)]


def _square(k: Tensor, state: Sequence[Tensor], fixed: Sequence[Tensor]) -> list[Tensor]:
    return [torch.where(k < fixed[0], state[0] @ state[0], state[0])]


@formula(aten.linalg_matrix_exp.default)
def matrix_exp(x: Tensor) -> Tensor:
    """Taylor's series of x over a power of 2, squared as often as it was halved; in float64.

    N. J. Higham, Functions of Matrices, 10.3. NaN where the sum of the sizes in a column is
    above 2 to the power of 64.
    """
    z = x.to(torch.float64)
    one = identity(z, z.shape[-1])
    # One more column, since the maximum of an empty tensor is an error.
    sums = torch.cat([z.abs().sum(-2), z.new_zeros((*z.shape[:-2], 1))], -1)
    halvings = sums.amax(-1).log2().ceil().clamp(min=0).unsqueeze(-1).unsqueeze(-1)
    series = repeat(_term, _DEGREE, [one], [z * (-halvings).exp2(), one])
    (result,) = repeat(_square, _MOST_SQUARINGS, series, [halvings])
    return torch.where(halvings <= _MOST_SQUARINGS, result, torch.nan).to(x.dtype)
