"""Positions of values in sorted sequences."""

from __future__ import annotations

import torch
from torch import Tensor

from strop.compiler.lower.onnx.formulas.registry import formula

aten = torch.ops.aten


@formula(aten.searchsorted.Tensor)
def searchsorted(
    ordered: Tensor,
    values: Tensor,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """The count of elements that come before a value; NaN comes last.

    Every value is compared with every element: n·m memory.
    """
    if sorter is not None:
        ordered = ordered.gather(-1, sorter)
    from_right = right or side == "right"
    rows = ordered.unsqueeze(-2) if ordered.dim() == values.dim() else ordered
    here = values.unsqueeze(-1)
    before = (rows <= here) if from_right else (rows < here)
    before = before | here.isnan()
    return before.sum(-1, dtype=torch.int32 if out_int32 else torch.int64)


@formula(aten.searchsorted.Scalar)
def searchsorted_number(
    ordered: Tensor,
    value: float,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """The same for one number."""
    at = torch.scalar_tensor(value, dtype=ordered.dtype, device=ordered.device)
    if sorter is not None:
        ordered = ordered.gather(-1, sorter)
    return searchsorted(ordered, at, out_int32=out_int32, right=right, side=side)


@formula(aten.bucketize.Tensor)
def bucketize(
    values: Tensor, boundaries: Tensor, *, out_int32: bool = False, right: bool = False
) -> Tensor:
    """The same among one row of boundaries."""
    return searchsorted(boundaries, values, out_int32=out_int32, right=right)


@formula(aten.bucketize.Scalar)
def bucketize_number(
    value: float, boundaries: Tensor, *, out_int32: bool = False, right: bool = False
) -> Tensor:
    """The same for one number."""
    at = torch.scalar_tensor(value, dtype=boundaries.dtype, device=boundaries.device)
    return searchsorted(boundaries, at, out_int32=out_int32, right=right)
