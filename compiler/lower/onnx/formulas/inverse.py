"""Moore and Penrose's inverse of any matrix."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from strop.compiler.lower.onnx.formulas.matrices import require_fixed
from strop.compiler.lower.onnx.formulas.registry import formula
from strop.compiler.lower.onnx.formulas.singular import right_vectors
from strop.compiler.lower.onnx.formulas.symmetric import mirrored

aten = torch.ops.aten


def pseudo_inverse(x: Tensor, least: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """``V D (x V)ᵀ``, with 1 over the squares of singular values in D, and 0 for small ones.

    Matrix Computations, 4th edition, 5.5.2.

    Args:
        x: float64, of fixed sizes.
        least: gives, for the largest singular value of each matrix, the value up to which others
            count as 0; [...].

    Returns:
        The inverse, and how many singular values counted, int64 [...].
    """
    rows, columns = x.shape[-2:]
    if 0 in (rows, columns):
        return x.mT, x.new_zeros(x.shape[:-2], dtype=torch.int64)
    tall = x.mT if rows < columns else x
    vectors, lengths = right_vectors(tall)
    counted = lengths > least(lengths.amax(-1)).unsqueeze(-1)
    scale = torch.where(counted, 1 / (lengths * lengths), 0.0).unsqueeze(-2)
    result = (vectors * scale) @ (tall @ vectors).mT
    return result.mT if rows < columns else result, counted.sum(-1)


@formula(aten.linalg_pinv.atol_rtol_tensor)
def pinv(
    x: Tensor, *, atol: Tensor | None = None, rtol: Tensor | None = None, hermitian: bool = False
) -> Tensor:
    """In float64; of a symmetric matrix the lower triangle is read."""
    require_fixed(x)
    usual = torch.finfo(x.dtype).eps * max(x.shape[-2:])

    def least(largest: Tensor) -> Tensor:
        if atol is None:
            return largest * (usual if rtol is None else rtol)
        relative = torch.where(atol > 0, 0.0, usual) if rtol is None else rtol
        return torch.maximum(atol.to(torch.float64), largest * relative)

    matrix = mirrored(x, "L") if hermitian else x
    return pseudo_inverse(matrix.to(torch.float64), least)[0].to(x.dtype)
