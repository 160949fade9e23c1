"""Order statistics and running extremes."""

from __future__ import annotations

import torch
from torch import Tensor

from strop.compiler.lower.onnx.formulas.registry import formula

aten = torch.ops.aten
Pair = tuple[Tensor, Tensor]


def _at(x: Tensor, position: Tensor, dim: int, keepdim: bool) -> Pair:
    """The value and the index of the element at a position of the sorted axis."""
    values, indices = torch.sort(x, dim=dim)
    picked = values.gather(dim, position), indices.gather(dim, position)
    return picked if keepdim else (picked[0].squeeze(dim), picked[1].squeeze(dim))


def _number(x: Tensor, per_row: Pair) -> Pair:
    """For a tensor without axes: its value, and index 0."""
    return per_row[0].view(x.shape), per_row[1].view(x.shape)


@formula(aten.kthvalue.default)
def kthvalue(x: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Pair:
    """The k-th smallest."""
    if x.dim() == 0:
        return _number(x, kthvalue(x.view(1), k, 0, True))
    place = torch.full_like(x.narrow(dim, 0, 1), k - 1, dtype=torch.int64)
    return _at(x, place, dim, keepdim)


@formula(aten.median.dim)
def median(x: Tensor, dim: int, keepdim: bool = False) -> Pair:
    """The lower of the two in the middle; NaN, at the first place that has it, if any is."""
    if x.dim() == 0:
        return _number(x, median(x.view(1), 0, True))
    place = torch.full_like(x.narrow(dim, 0, 1), 0, dtype=torch.int64) + (x.shape[dim] - 1) // 2
    value, index = _at(x, place, dim, True)
    if x.is_floating_point():
        missing = x.isnan().any(dim, keepdim=True)
        first = x.isnan().to(torch.int32).argmax(dim, keepdim=True)
        value = torch.where(missing, torch.full_like(value, torch.nan), value)
        index = torch.where(missing, first, index)
    return (value, index) if keepdim else (value.squeeze(dim), index.squeeze(dim))


@formula(aten.median.default)
def median_all(x: Tensor) -> Tensor:
    """Of all elements."""
    return median(x.reshape(-1), 0)[0]


@formula(aten.nanmedian.dim)
def nanmedian(x: Tensor, dim: int, keepdim: bool = False) -> Pair:
    """The median of the elements that are not NaN; NaN is sorted last."""
    if not x.is_floating_point():
        return median(x, dim, keepdim)
    if x.dim() == 0:
        return _number(x, nanmedian(x.view(1), 0, True))
    missing = x.isnan()
    last = torch.where(missing, torch.full_like(x, torch.inf), x)
    count = (~missing).sum(dim, keepdim=True)
    value, index = _at(last, ((count - 1) // 2).clamp(min=0), dim, True)
    value = torch.where(count == 0, torch.full_like(value, torch.nan), value)
    return (value, index) if keepdim else (value.squeeze(dim), index.squeeze(dim))


@formula(aten.nanmedian.default)
def nanmedian_all(x: Tensor) -> Tensor:
    """Of all elements."""
    return nanmedian(x.reshape(-1), 0)[0]


@formula(aten.mode.default)
def mode(x: Tensor, dim: int = -1, keepdim: bool = False) -> Pair:
    """The smallest of the most frequent values, and the last place that has it.

    Every element is compared with every other: n² memory along the axis.
    """
    if x.dim() == 0:
        return _number(x, mode(x.view(1), 0, True))
    rows = x.movedim(dim, -1)
    counts = (rows.unsqueeze(-1) == rows.unsqueeze(-2)).sum(-1)
    frequent = counts == counts.amax(-1, keepdim=True)
    ordered, places = torch.sort(rows, dim=-1)
    first = frequent.gather(-1, places).to(torch.int32).argmax(-1, keepdim=True)
    value = ordered.gather(-1, first)
    along = torch.arange(x.shape[dim], device=x.device)
    index = torch.where(rows == value, along, torch.zeros_like(along)).amax(-1, keepdim=True)
    value, index = value.movedim(-1, dim), index.movedim(-1, dim)
    return (value, index) if keepdim else (value.squeeze(dim), index.squeeze(dim))


@formula(aten.cummax.default)
def cummax(x: Tensor, dim: int) -> Pair:
    """The largest so far, and the last place that has it; a NaN stays."""
    return _running(x, dim, largest=True)


@formula(aten.cummin.default)
def cummin(x: Tensor, dim: int) -> Pair:
    """The smallest so far, and the last place that has it; a NaN stays."""
    return _running(x, dim, largest=False)


def _running(x: Tensor, dim: int, largest: bool) -> Pair:
    """Every element against all before it: n² memory along the axis.

    An element is a record if no earlier one exceeds it; the result is the last record so far.
    """
    if x.dim() == 0:
        return x.clone(), torch.zeros_like(x, dtype=torch.int64)
    rows = x.movedim(dim, -1)
    along = torch.arange(x.shape[dim], device=x.device)
    here, before = rows.unsqueeze(-1), rows.unsqueeze(-2)
    beaten = (before > here) if largest else (before < here)
    if x.is_floating_point():
        beaten = (beaten & ~here.isnan()) | (before.isnan() & ~here.isnan())
    earlier = along.unsqueeze(0) < along.unsqueeze(-1)
    record = ~(beaten & earlier).any(-1)
    reached = along.unsqueeze(0) <= along.unsqueeze(-1)
    place = torch.where(record.unsqueeze(-2) & reached, along, torch.zeros_like(along)).amax(-1)
    return rows.gather(-1, place).movedim(-1, dim), place.movedim(-1, dim)
