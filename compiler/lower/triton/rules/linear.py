"""Products of matrices in 16-bit floats and in int8, with what is behind them."""

from __future__ import annotations

import torch
from torch import Tensor

from strop.compiler.lower.triton.layouts import flat, like, rows, rows_or_none
from strop.compiler.lower.triton.table import lowers
from strop.compiler.lower.triton.tracer import Tracer
from strop.kernels.gemm import gated_gemm, gemm
from strop.kernels.gemm_int8 import gated_gemm_int8, gemm_int8

strop = torch.ops.strop


@lowers(strop.fused_linear.default)
def _fused_linear(
    on: Tracer,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
) -> Tensor:
    y = on.launch(gemm, rows(on, x), weight, bias, rows_or_none(on, residual), activation)
    return like(on, y, x)


@lowers(strop.gated_linear.default)
def _gated_linear(
    on: Tracer,
    x: Tensor,
    gate: Tensor,
    up: Tensor,
    gate_bias: Tensor | None,
    up_bias: Tensor | None,
    activation: str,
) -> Tensor:
    y = on.launch(gated_gemm, rows(on, x), gate, up, gate_bias, up_bias, activation)
    return like(on, y, x)


@lowers(strop.linear_int8.default)
def _linear_int8(
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
    y = on.launch(
        gemm_int8,
        rows(on, q),
        flat(on, scale),
        weight,
        weight_scale,
        bias,
        rows_or_none(on, residual),
        activation,
        dtype,
    )
    return like(on, y, q)


@lowers(strop.gated_linear_int8.default)
def _gated_linear_int8(
    on: Tracer,
    q: Tensor,
    scale: Tensor,
    gate: Tensor,
    gate_scale: Tensor,
    up: Tensor,
    up_scale: Tensor,
    gate_bias: Tensor | None,
    up_bias: Tensor | None,
    activation: str,
    dtype: torch.dtype,
) -> Tensor:
    y = on.launch(
        gated_gemm_int8,
        rows(on, q),
        flat(on, scale),
        gate,
        gate_scale,
        up,
        up_scale,
        gate_bias,
        up_bias,
        activation,
        dtype,
    )
    return like(on, y, q)
