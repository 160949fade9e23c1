"""Linear layers in float, with what follows them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from strop.compiler.ir.dialect.kernels.epilogue import activated, finished
from strop.compiler.ir.dialect.registry import define


@define(
    "fused_linear(Tensor x, Tensor weight, Tensor? bias, Tensor? residual, str activation) "
    "-> Tensor"
)
def fused_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None, activation: str
) -> Tensor:
    """activation(x weight^T + bias) + residual, in float32 and rounded once to x's dtype.

    x: [..., in] float; weight: [out, in] like x; bias: [out] float; residual: [..., out] like x;
    activation: "none", "relu", "gelu", "gelu_tanh" or "silu".
    """
    sums = F.linear(x.float(), weight.float())
    return finished(sums, bias, residual, activation, x.dtype)


@define(
    "gated_linear(Tensor x, Tensor gate, Tensor up, Tensor? gate_bias, Tensor? up_bias, "
    "str activation) -> Tensor"
)
def gated_linear(
    x: Tensor,
    gate: Tensor,
    up: Tensor,
    gate_bias: Tensor | None,
    up_bias: Tensor | None,
    activation: str,
) -> Tensor:
    """activation(x gate^T + gate_bias) * (x up^T + up_bias), in float32 and rounded once.

    x: [..., in] float; gate, up: [out, in] like x; biases: [out] float.
    """
    wide = x.float()
    opened = _sums(wide, gate, gate_bias)
    return (activated(opened, activation) * _sums(wide, up, up_bias)).to(x.dtype)


def _sums(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(x, weight.float(), None if bias is None else bias.float())
