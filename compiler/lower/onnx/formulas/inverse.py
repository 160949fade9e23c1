"""Moore and Penrose's inverse of any matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from strop.compiler.lower.onnx.formulas.matrices import require_fixed
from strop.compiler.lower.onnx.formulas.registry import formula
from strop.compiler.lower.onnx.formulas.singular import right_vectors
from strop.compiler.lower.onnx.formulas.symmetric import mirrored

aten = torch.ops.aten


def _least(x: Tensor, largest: Tensor, atol: Tensor | None, rtol: Tensor | None) -> Tensor:
    """The length up to which singular values count as 0, as torch has it; [...]."""
    usual = torch.finfo(x.dtype).eps * max(x.shape[-2:])
    if atol is None:
        return largest * (usual if rtol is None else rtol)
    relative = torch.where(atol > 0, 0.0, usual) if rtol is None else rtol
    return torch.maximum(atol.to(torch.float64), largest * relative)


@formula(aten.linalg_pinv.atol_rtol_tensor)
def pinv(
    x: Tensor, *, atol: Tensor | None = None, rtol: Tensor | None = None, hermitian: bool = False
) -> Tensor:
    """``V D (x V)ᵀ``, with 1 over the squares of singular values in D, and 0 for small ones.

    Matrix Computations, 4th edition, 5.5.2. Of a symmetric matrix the lower triangle is read.
    """
    require_fixed(x)
    if 0 in x.shape[-2:]:
        return x.new_zeros(x.mT.shape)
    z = (mirrored(x, "L") if hermitian else x).to(torch.float64)
    wide = z.shape[-2] < z.shape[-1]
    z = z.mT if wide else z
    vectors, lengths = right_vectors(z)
    least = _least(x, lengths.amax(-1), atol, rtol).unsqueeze(-1)
    scale = torch.where(lengths > least, 1 / (lengths * lengths), 0.0).unsqueeze(-2)
    result = (vectors * scale) @ (z @ vectors).mT
    return (result.mT if wide else result).to(x.dtype)
