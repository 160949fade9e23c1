"""Linear layers on e4m3 weights and activations, each row of activations with its own scale."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from strop.compiler.ir.dialect.fp8 import LARGEST
from strop.compiler.ir.dialect.kernels.epilogue import finished
from strop.compiler.ir.dialect.kernels.int8 import row_scale
from strop.compiler.ir.dialect.registry import define


@define("quantize_rows_fp8(Tensor x) -> (Tensor, Tensor)")
def quantize_rows_fp8(x: Tensor) -> tuple[Tensor, Tensor]:
    """(q, scale): scale = max|row| / 448; q = row / scale, to nearest, ties to even.

    Scales of rows of zeros and of small numbers are 1, as those of ``quantize_rows``.

    x: [..., size] float; q: [..., size] e4m3; scale: [...] float32.
    """
    wide = x.float()
    scale = row_scale(wide, LARGEST)
    return _rounded(wide, scale), scale


@define("fp8_weight(Tensor weight, Tensor scale) -> Tensor")
def fp8_weight(weight: Tensor, scale: Tensor) -> Tensor:
    """weight / scale[:, None] as e4m3: [rows, size] float, [rows] float."""
    return _rounded(weight, scale)


@define(
    "scaled_linear_fp8(Tensor q, Tensor scale, Tensor weight, Tensor weight_scale, Tensor? bias, "
    "Tensor? residual, str activation, ScalarType dtype) -> Tensor"
)
def scaled_linear_fp8(
    q: Tensor,
    scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
    dtype: torch.dtype,
) -> Tensor:
    """activation(q weight^T * scale * weight_scale + bias) + residual, in float32, rounded once.

    q: [..., in] e4m3; scale: [...] float32; weight: [out, in] e4m3; weight_scale: [out] float32;
    bias: [out] float; residual: [..., out] float; result: ``dtype``.
    """
    sums = F.linear(q.float(), weight.float()) * scale[..., None] * weight_scale
    return finished(sums, bias, residual, activation, dtype)


def _rounded(x: Tensor, scale: Tensor) -> Tensor:
    # Rounding of the quotient may lead above the largest value, which would become NaN.
    return (x / scale[..., None]).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn)
