"""Linear layers on int8 weights and activations, each row of activations with its own scale."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from strop.compiler.ir.dialect.kernels.epilogue import activated, finished
from strop.compiler.ir.dialect.registry import define


@define("quantize_rows(Tensor x) -> (Tensor, Tensor)")
def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """(q, scale): scale = max|row| / 127; q = round(row / scale), ties to even.

    The scale of a row of zeros is 1, and so it is for a row so small that its scale would have lost
    digits.

    x: [..., size] float; q: [..., size] int8; scale: [...] float32.
    """
    wide = x.float()
    scale = row_scale(wide, 127)
    return (wide / scale[..., None]).round().to(torch.int8), scale


def row_scale(x: Tensor, largest: float) -> Tensor:
    """What rows of float32 are divided by so that their largest values become ``largest``."""
    scale = x.abs().amax(dim=-1) / largest
    return torch.where(scale < torch.finfo(torch.float32).tiny, torch.ones_like(scale), scale)


@define(
    "linear_int8(Tensor q, Tensor scale, Tensor weight, Tensor weight_scale, Tensor? bias, "
    "Tensor? residual, str activation, ScalarType dtype) -> Tensor"
)
def linear_int8(
    q: Tensor,
    scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
    dtype: torch.dtype,
) -> Tensor:
    """activation(q weight^T * scale * weight_scale + bias) + residual.

    The products are summed in whole numbers; the rest is float32, rounded once to ``dtype``.

    q: [..., in] int8; scale: [...] float32; weight: [out, in] int8; weight_scale: [out] float32;
    bias: [out] float; residual: [..., out] float.
    """
    sums = _products(q, scale, weight, weight_scale)
    return finished(sums, bias, residual, activation, dtype)


@define(
    "gated_linear_int8(Tensor q, Tensor scale, Tensor gate, Tensor gate_scale, Tensor up, "
    "Tensor up_scale, Tensor? gate_bias, Tensor? up_bias, str activation, ScalarType dtype) "
    "-> Tensor"
)
def gated_linear_int8(
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
    """activation(the one linear layer) * the other, each as in ``linear_int8``; rounded once.

    q: [..., in] int8; scale: [...] float32; gate, up: [out, in] int8, their scales and biases
    [out].
    """
    opened = _products(q, scale, gate, gate_scale)
    passed = _products(q, scale, up, up_scale)
    if gate_bias is not None:
        opened = opened + gate_bias.float()
    if up_bias is not None:
        passed = passed + up_bias.float()
    return (activated(opened, activation) * passed).to(dtype)


def _products(q: Tensor, scale: Tensor, weight: Tensor, weight_scale: Tensor) -> Tensor:
    """The sums as float32: float64 holds them exactly, and its products are fast everywhere."""
    whole = F.linear(q.double(), weight.double()).float()
    return whole * scale[..., None] * weight_scale
