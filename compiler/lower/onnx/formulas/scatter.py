"""Writing and combining at positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from strop.compiler.lower.onnx.formulas.registry import formula

aten = torch.ops.aten
prims = torch.ops.prims


def _least(x: Tensor) -> float:
    return -math.inf if x.is_floating_point() else torch.iinfo(x.dtype).min


def _most(x: Tensor) -> float:
    return math.inf if x.is_floating_point() else torch.iinfo(x.dtype).max


# The neutral element of each reduction.
_NEUTRAL = {
    "sum": lambda x: 0, "mean": lambda x: 0, "prod": lambda x: 1, "amax": _least, "amin": _most,
}  # fmt: skip


@formula(aten.scatter_reduce.two)
def scatter_reduce(
    x: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """Means are sums over counts; old values that do not count are set to the neutral element."""
    if not include_self:
        x = x.scatter(dim, index, _NEUTRAL[reduce](x))
    if reduce != "mean":
        return x.scatter_reduce(dim, index, src, reduce, include_self=True)
    total = x.scatter_add(dim, index, src)
    ones = torch.ones_like(x)
    counted = ones if include_self else ones.scatter(dim, index, 0)
    count = counted.scatter_add(dim, index, torch.ones_like(src)).clamp(min=1)
    return total / count if x.is_floating_point() else total.div(count, rounding_mode="floor")


@formula(aten.scatter.reduce)
def scatter_combine(x: Tensor, dim: int, index: Tensor, src: Tensor, *, reduce: str) -> Tensor:
    """``scatter`` that adds or multiplies."""
    kind = "sum" if reduce == "add" else "prod"
    return x.scatter_reduce(dim, index, src, kind, include_self=True)


@formula(aten.scatter.value_reduce)
def scatter_number(x: Tensor, dim: int, index: Tensor, value: float, *, reduce: str) -> Tensor:
    """The same with one number."""
    src = torch.full_like(index, value, dtype=x.dtype)
    return scatter_combine(x, dim, index, src, reduce=reduce)


@formula(aten.index_reduce.default)
def index_reduce(
    x: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """``scatter_reduce`` of whole slices."""
    if x.dim() == 0:
        rows = index_reduce(
            x.view(1), 0, index.view(1), source.view(1), reduce, include_self=include_self
        )
        return rows.view(())
    shape = [1] * source.dim()
    shape[dim] = index.numel()
    spread = index.to(torch.int64).view(shape).expand(source.shape)
    return x.scatter_reduce(dim, spread, source, reduce, include_self=include_self)


@formula(aten.put.default)
def put(x: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """Writing by position in the flattened tensor."""
    flat = x.reshape(-1)
    return flat.index_put([index.reshape(-1)], source.reshape(-1), accumulate).view(x.shape)


@formula(aten.diagonal_scatter.default)
def diagonal_scatter(
    x: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> Tensor:
    """A matrix of two axes with its diagonal replaced."""
    square = x.movedim((dim1, dim2), (0, 1))
    along = torch.arange(src.shape[-1], device=x.device)
    place = (along + max(-offset, 0), along + max(offset, 0))
    written = square.index_put(place, src.movedim(-1, 0))
    return written.movedim((0, 1), (dim1, dim2))


@formula(prims.as_strided_scatter.default, aten.as_strided_scatter.default)
def as_strided_scatter(
    x: Tensor, src: Tensor, size: list[int], stride: list[int], storage_offset: int | None = None
) -> Tensor:
    """Writing to the elements that a strided view of a contiguous tensor covers."""
    place = torch.scalar_tensor(storage_offset or 0, dtype=torch.int64, device=x.device)
    for length, step in zip(size, stride):
        place = place.unsqueeze(-1) + torch.arange(length, device=x.device) * step
    flat = x.reshape(-1)
    return flat.index_put([place.reshape(-1)], src.reshape(-1)).view(x.shape)


@formula(aten.nonzero_static.default)
def nonzero_static(x: Tensor, *, size: int, fill_value: int = -1) -> Tensor:
    """The first positions that are not zero, [size, rank]; filled up."""
    found = (x != 0).reshape(-1)
    rank = found.to(torch.int64).cumsum(0) - 1
    slot = torch.where(found, rank, size).clamp(max=size)
    flat = torch.arange(found.shape[0], device=x.device)
    places = torch.zeros(size + 1, dtype=torch.int64, device=x.device).scatter(0, slot, flat)[:size]
    parts = []
    for axis in range(x.dim()):
        inner = math.prod(x.shape[axis + 1 :])
        parts.append(places // inner % x.shape[axis])
    there = torch.arange(size, device=x.device) < found.sum()
    stacked = torch.stack(parts, -1) if parts else places.new_zeros((size, 0))
    return torch.where(there.unsqueeze(-1), stacked, fill_value)
