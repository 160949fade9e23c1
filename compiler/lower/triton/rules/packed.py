"""Linear layers on packed weights of 4 or 8 bits."""

from __future__ import annotations

import torch
from torch import Tensor

from strop.compiler.lower.triton.layouts import like, rows, rows_or_none
from strop.compiler.lower.triton.table import lowers
from strop.compiler.lower.triton.tracer import Tracer
from strop.kernels.gemm_packed import gemm_packed


@lowers(torch.ops.strop.packed_linear.default)
def _packed_linear(
    on: Tracer,
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    zero_point: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    bits: int,
    activation: str,
) -> Tensor:
    given = weight, scale, zero_point, bias, rows_or_none(on, residual)
    y = on.launch(gemm_packed, rows(on, x), *given, bits, activation)
    return like(on, y, x)
