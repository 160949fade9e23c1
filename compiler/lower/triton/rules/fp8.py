"""Linear layers on 8-bit floats, and rows rounded to them."""

from __future__ import annotations

import torch
from torch import Tensor

from strop.compiler.lower.triton.layouts import flat, like, rows, rows_or_none, with_axes
from strop.compiler.lower.triton.table import lowers
from strop.compiler.lower.triton.tracer import Tracer
from strop.kernels.gemm_fp8 import gemm_fp8, quantize_rows_fp8

strop = torch.ops.strop


@lowers(strop.quantize_rows_fp8.default)
def _quantize_rows_fp8(on: Tracer, x: Tensor) -> tuple[Tensor, Tensor]:
    q, scale = on.launch(quantize_rows_fp8, rows(on, x))
    return like(on, q, x), with_axes(on, scale, x.shape[:-1])


@lowers(strop.scaled_linear_fp8.default)
def _scaled_linear_fp8(
    on: Tracer,
    q: Tensor,
    scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
    dtype: torch.dtype,
) -> Tensor:
    operands = rows(on, q), flat(on, scale), weight, weight_scale
    y = on.launch(gemm_fp8, *operands, bias, rows_or_none(on, residual), activation, dtype)
    return like(on, y, q)
