"""Linear layers on 8-bit floats."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from strop.compiler.ir.dialect.registry import define

LARGEST = torch.finfo(torch.float8_e4m3fn).max  # 448


@define("fp8_scale(Tensor x) -> Tensor")
def fp8_scale(x: Tensor) -> Tensor:
    """What each row of the last axis is divided by so that it fits e4m3; 1 for a row of zeros.

    x: [..., size] float; result: [...], max|x| / 448. E4M3 has no infinity, and 448 is its largest
    value (Micikevicius et al., FP8 Formats for Deep Learning, 2022, table 1).
    """
    top = x.detach().abs().amax(dim=-1)
    return torch.where(top > 0, top / LARGEST, torch.ones_like(top))


def fake_fp8(x: Tensor, scale: Tensor) -> Tensor:
    """x as e4m3 holds it: each row over its scale, to nearest, ties to even, and back.

    The gradient passes straight through.
    """
    # Rounding of the quotient may lead above the largest value, which would become NaN.
    scaled = (x.detach() / scale[..., None]).clamp(-LARGEST, LARGEST)
    held = scaled.to(torch.float8_e4m3fn).to(x.dtype) * scale[..., None]
    return x + (held - x.detach())


@define(
    "linear_fp8(Tensor x, Tensor weight, Tensor scale, Tensor? bias) -> Tensor",
    stored={"weight": torch.float8_e4m3fn},
)
def linear_fp8(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """Linear on weights and activations in e4m3; each token has its scale, found at run time.

    x: [..., in] float; weight: [out, in] float, rounded here to e4m3 so that it can still be
    trained; scale: [out] float; bias: [out] float. Products are summed in the weight's dtype,
    float32 also where x and bias are of 16 bits; the result has x's.
    """
    rows, wide = x.to(weight.dtype), None if bias is None else bias.to(weight.dtype)
    held = fake_fp8(rows, fp8_scale(rows))
    return F.linear(held, fake_fp8(weight, scale), wide).to(x.dtype)
