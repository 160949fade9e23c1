"""Least squares, by the LAPACK driver that the call names."""

from __future__ import annotations

import torch
from torch import Tensor

from strop.compiler.ir.least_squares import LEAST_SQUARES, USUAL_DRIVER, is_vector
from strop.compiler.lower.onnx.formulas.inverse import pseudo_inverse
from strop.compiler.lower.onnx.formulas.matrices import require_fixed
from strop.compiler.lower.onnx.formulas.reflections import orthogonal_factors
from strop.compiler.lower.onnx.formulas.registry import formula
from strop.compiler.lower.onnx.formulas.triangular import substituted


def _of_full_rank(a: Tensor, b: Tensor) -> Tensor:
    """The solution by ``a = Q R``, or for fewer rows than columns the shortest by ``aᵀ = Q R``.

    Matrix Computations, 4th edition, 5.3.3 and 5.6.2.
    """
    if a.shape[-2] >= a.shape[-1]:
        q, r = orthogonal_factors(a)
        return substituted(r, q.mT @ b, upper=True)
    q, r = orthogonal_factors(a.mT)
    return q @ substituted(r.mT, b, upper=False)


@formula(LEAST_SQUARES)
def least_squares(
    a: Tensor, b: Tensor, rcond: float | None = None, *, driver: str | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Solution, residuals, rank and singular values, in float64; the last has no elements.

    "gels" takes the matrix to have full rank, and gives the residuals of more rows than columns.
    "gelsy" gives the rank, and the shortest solution.

    Raises:
        NotImplementedError: "gelsy" is to drop more of a matrix than rounding errors. What that
            changes depends on the order in which LAPACK looks at the columns.
    """
    require_fixed(a)
    z, right = a.to(torch.float64), b.to(torch.float64)
    right = right.unsqueeze(-1) if is_vector(a, b) else right
    nothing = a.new_zeros(0)
    residuals, rank = nothing, nothing.to(torch.int64)
    if (driver or USUAL_DRIVER) == "gels":
        x = _of_full_rank(z, right)
        if a.shape[-2] > a.shape[-1]:
            residuals = (right - z @ x).square().sum(-2).to(a.dtype)
    elif rcond is None:
        rounding = torch.finfo(a.dtype).eps * max(a.shape[-2:])
        inverse, rank = pseudo_inverse(z, lambda largest: largest * rounding)
        x = inverse @ right
    else:
        raise NotImplementedError("driver 'gelsy' with its default rcond only")
    x = x.squeeze(-1) if is_vector(a, b) else x
    return x.to(a.dtype), residuals, rank, nothing
