"""Norms whose result is wanted in int8."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from strop.compiler.ir.dialect.kernels.int8 import quantize_rows
from strop.compiler.ir.dialect.registry import define


@define(
    "norm_int8(Tensor x, Tensor? residual, Tensor? weight, Tensor? bias, float eps, bool rms) "
    "-> (Tensor y, Tensor total, Tensor q, Tensor scale)"
)
def norm_int8(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    rms: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(y, total, q, scale): total = x + residual, y its norm, q and scale y in int8 by rows.

    x, residual: [..., size] of one dtype; weight, bias: [size] float. y and total are like x,
    and total is x where there is no residual; q and scale are those of ``quantize_rows`` for y as
    it was rounded. The norm is RMSNorm, without a bias, or LayerNorm over the last axis, computed
    in float32.
    """
    total = x if residual is None else x + residual
    y = normed(total.float(), weight, bias, eps, rms).to(x.dtype)
    return (y, total, *quantize_rows(y))


def normed(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, rms: bool) -> Tensor:
    """RMSNorm or LayerNorm of float32 [..., size], with factors of any float dtype."""
    size = (x.shape[-1],)
    factor = None if weight is None else weight.float()
    if rms:
        return F.rms_norm(x, size, factor, eps)
    return F.layer_norm(x, size, factor, None if bias is None else bias.float(), eps)
