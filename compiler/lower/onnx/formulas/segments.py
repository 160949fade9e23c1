"""Reductions over segments, whose lengths are given as data."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from strop.compiler.lower.onnx.formulas.registry import formula

aten = torch.ops.aten
_KINDS = {"max": "amax", "min": "amin", "sum": "sum", "mean": "sum", "prod": "prod"}
_NEUTRAL = {"max": -math.inf, "min": math.inf, "sum": 0.0, "mean": 0.0, "prod": 1.0}


@formula(aten.segment_reduce.default)
def segment_reduce(
    data: Tensor,
    reduce: str,
    *,
    lengths: Tensor | None = None,
    indices: Tensor | None = None,
    offsets: Tensor | None = None,
    axis: int = 0,
    unsafe: bool = False,
    initial: float | None = None,
) -> Tensor:
    """Segments along an axis; the axes before it have lengths of their own.

    A segment without elements gives the initial value, or the neutral element; its mean is NaN.
    """
    if lengths is None:
        assert offsets is not None, "torch takes no indices"
        lengths = offsets.diff(dim=-1)
        first = offsets.narrow(-1, 0, 1)
    else:
        first = torch.zeros_like(lengths.narrow(-1, 0, 1))
    count, rank = lengths.shape[-1], data.dim()
    ends = first + lengths.cumsum(-1)
    place = torch.arange(data.shape[axis], device=data.device)
    segment = (place.unsqueeze(-1) >= ends.unsqueeze(-2)).sum(-1)
    # Elements before the first segment are counted in one more segment, which is dropped.
    segment = torch.where(place < first, count, segment)
    deep = [1] * (rank - axis - 1)
    start = _NEUTRAL[reduce] if initial is None else initial
    shape = [*data.shape[:axis], count + 1, *data.shape[axis + 1 :]]
    room = torch.full(shape, start, dtype=data.dtype, device=data.device)
    index = segment.view([*segment.shape, *deep]).expand(data.shape)
    found = room.scatter_reduce(axis, index, data, _KINDS[reduce], include_self=True)
    found = found.narrow(axis, 0, count)
    if reduce != "mean":
        return found
    size = lengths.view([*lengths.shape, *deep]).to(data.dtype)
    if initial is not None:
        size = size.clamp(min=1)
    return found / size
