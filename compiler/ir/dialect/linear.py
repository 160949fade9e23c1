"""Linear layers: followed by an activation, or with int8 weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from strop.compiler.ir.dialect.registry import define


@define("bias_gelu(Tensor x, Tensor bias, str approximate) -> Tensor")
def bias_gelu(x: Tensor, bias: Tensor, approximate: str) -> Tensor:
    """GELU(x + bias); ``approximate`` is "none" (erf) or "tanh"."""
    return F.gelu(x + bias, approximate=approximate)


@define("gated(Tensor gate, Tensor up, str activation) -> Tensor")
def gated(gate: Tensor, up: Tensor, activation: str) -> Tensor:
    """activation(gate) * up: SwiGLU for "silu", GeGLU for "gelu" or "gelu_tanh"."""
    if activation == "silu":
        return F.silu(gate) * up
    return F.gelu(gate, approximate="tanh" if activation == "gelu_tanh" else "none") * up


@define("int8_scale(Tensor weight) -> Tensor")
def int8_scale(weight: Tensor) -> Tensor:
    """Symmetric int8 scale of each row of [rows, size]: max|w| / 127, 1 for a row of zeros."""
    top = weight.detach().abs().amax(dim=1)
    return torch.where(top > 0, top / 127, torch.ones_like(top))


@define("int8_weight(Tensor weight, Tensor scale) -> Tensor")
def int8_weight(weight: Tensor, scale: Tensor) -> Tensor:
    """round(weight / scale[:, None]) as int8, ties to even, within [-127, 127]."""
    return (weight / scale[:, None]).round().clamp(-127, 127).to(torch.int8)


def fake_int8(weight: Tensor, scale: Tensor) -> Tensor:
    """The weight on its int8 grid, in float; the gradient passes straight through."""
    grid = (weight.detach() / scale[:, None]).round().clamp(-127, 127)
    return weight + (grid * scale[:, None] - weight.detach())


@define("stored_int8(Tensor weight, Tensor scale) -> Tensor", stored={"weight": torch.int8})
def stored_int8(weight: Tensor, scale: Tensor) -> Tensor:
    """A weight that the file holds in int8 and the runtime unpacks when it loads.

    weight: [rows, size] float, rounded here to its int8 grid; scale: [rows].
    """
    return fake_int8(weight, scale)


def _dynamic_fake_quantize(x: Tensor) -> Tensor:
    """x rounded to the u8 grid of ONNX DynamicQuantizeLinear, one scale for the whole tensor.

    scale = (max(x, 0) - min(x, 0)) / 255, zero point = round(-min / scale). The gradient passes
    straight through.
    """
    low, high = x.detach().amin().clamp(max=0), x.detach().amax().clamp(min=0)
    scale = ((high - low) / 255).clamp(min=torch.finfo(x.dtype).tiny)
    zero = (-low / scale).round().clamp(0, 255)
    grid = ((x.detach() / scale).round() + zero).clamp(0, 255)
    return x + ((grid - zero) * scale - x.detach())


@define(
    "linear_w8a8(Tensor x, Tensor weight, Tensor scale, Tensor? bias) -> Tensor",
    stored={"weight": torch.int8},
    spans_batch=True,
)
def linear_w8a8(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """Linear on int8 weights and activations quantized at run time.

    x: [..., in] float; weight: [out, in] float, rounded here to its int8 grid so that it can
    still be trained; scale: [out]; bias: [out] float. The meaning is that of ONNX Runtime's
    DynamicQuantizeMatMul. Sums and scales are in the weight's dtype, float32 also where x and bias
    are of 16 bits; the result has x's.
    """
    return _int8_product(_dynamic_fake_quantize(x.to(weight.dtype)), weight, scale, bias).to(
        x.dtype
    )


def _int8_product(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    wide = None if bias is None else bias.to(weight.dtype)
    return F.linear(x, fake_int8(weight, scale), wide)


def _fake_quantize_rows(x: Tensor) -> Tensor:
    """x rounded to 255 steps, as many below zero as above, with a scale for each row.

    scale = max|row| / 127. The gradient passes straight through.
    """
    top = x.detach().abs().amax(-1, keepdim=True)
    scale = (top / 127).clamp(min=torch.finfo(x.dtype).tiny)
    return x + ((x.detach() / scale).round() * scale - x.detach())


@define(
    "linear_w8a8_rows(Tensor x, Tensor weight, Tensor scale, Tensor? bias) -> Tensor",
    stored={"weight": torch.int8},
)
def linear_w8a8_rows(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """The same with a scale for each row of x, so that no row depends on its neighbours."""
    return _int8_product(_fake_quantize_rows(x.to(weight.dtype)), weight, scale, bias).to(x.dtype)
