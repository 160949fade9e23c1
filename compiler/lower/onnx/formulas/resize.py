"""Resizing by factors that the runtime would round."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from strop.compiler.lower.onnx.formulas.registry import formula

aten = torch.ops.aten


@formula(
    aten.upsample_linear1d.vec,
    aten.upsample_bilinear2d.vec,
    aten.upsample_trilinear3d.vec,
)
def upsample_linear(
    x: Tensor,
    output_size: Sequence[int] | None,
    align_corners: bool,
    scale_factors: Sequence[float],
) -> Tensor:
    """One axis after the other, each value between its two neighbours.

    torch keeps an axis as it is where a factor leaves its size, which its decomposition does not.
    """
    for axis, factor in enumerate(scale_factors, start=2):
        before = x.shape[axis]
        after = torch.sym_int(before * factor)
        places = torch.arange(after, dtype=torch.float32, device=x.device)
        middle = ((places + 0.5) * (1.0 / factor) - 0.5).clamp(min=0)
        kept = torch.scalar_tensor(before) == torch.scalar_tensor(after)
        source = torch.where(kept, places, middle)
        low = source.to(torch.int64).clamp(max=before - 1)
        high = (low + 1).clamp(max=before - 1)
        share = (source - low).clamp(0, 1).to(x.dtype)
        share = share.view([-1, *[1] * (x.dim() - axis - 1)])
        x = x.index_select(axis, low) * (1 - share) + x.index_select(axis, high) * share
    return x
