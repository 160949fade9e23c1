"""Eigenvalues of symmetric matrices."""

from __future__ import annotations

import torch
from torch import Tensor

from strop.compiler.lower.onnx.formulas.matrices import diagonal, require_fixed
from strop.compiler.lower.onnx.formulas.registry import formula
from strop.compiler.lower.onnx.formulas.singular import SIGNS, right_vectors

aten = torch.ops.aten


def mirrored(x: Tensor, triangle: str) -> Tensor:
    """The symmetric matrix with this triangle, "L" or "U"; the other one is not read."""
    if triangle.upper() == "L":
        return x.tril() + x.tril(-1).mT
    return x.triu() + x.triu(1).mT


def eigenvalues(x: Tensor) -> Tensor:
    """Of symmetric matrices, the smallest first; float64 [..., rows].

    The diagonal is raised until no eigenvalue is negative (S. Gershgorin's bound): eigenvectors
    are singular vectors then. The eigenvalues are their Rayleigh quotients in the matrix itself.
    """
    bound = x.abs().sum(-1).amax(-1, keepdim=True)
    vectors, _ = right_vectors(x + torch.diag_embed(bound.expand(x.shape[:-1])))
    quotients = (vectors * (x @ vectors)).sum(-2)
    return torch.sort(quotients, dim=-1)[0]


@formula(aten._linalg_eigh.default)
def eigh_values(x: Tensor, UPLO: str = "L", compute_v: bool = True) -> tuple[Tensor, Tensor]:
    """The eigenvalues; torch's own operators read no vectors of them, which are NaN."""
    require_fixed(x)
    if x.shape[-1] <= 1:
        return diagonal(x), torch.ones_like(x)
    values = eigenvalues(mirrored(x, UPLO).to(torch.float64))
    return values.to(x.dtype), torch.full_like(x, torch.nan)


@formula(aten.linalg_eigh.default)
def eigh(x: Tensor, UPLO: str = "L") -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors, of matrices with at most one row only."""
    require_fixed(x)
    if x.shape[-1] > 1:
        raise NotImplementedError(SIGNS.format("eigvalsh"))
    return eigh_values(x, UPLO)
