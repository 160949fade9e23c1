"""How many elements lie between the edges of bins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def _spaced(low: Any, high: Any, count: int, like: Tensor) -> Tensor:
    """``linspace`` from one number to another, to the last bit: an element may lie on an edge.

    Torch counts from both ends, by steps rounded to the dtype, and rounds each product with its
    sum once.
    """
    if not isinstance(low, Tensor):
        return torch.linspace(low, high, count, dtype=like.dtype, device=like.device)
    step = (high - low) / (count - 1)
    place = torch.arange(count, device=like.device)
    up = _multiply_add(step, place, low)
    down = _multiply_add(-step, count - 1 - place, high)
    return torch.where(place < count // 2, up, down)


def _multiply_add(step: Tensor, times: Tensor, start: Tensor) -> Tensor:
    """``start + step * times``, rounded once, for integers of up to 26 bits.

    float32 in float64; float64 by T. J. Dekker's split of a factor into halves, whose products are
    exact, and D. E. Knuth's sum of two numbers with its error.
    """
    dtype = step.dtype
    step, start, times = (t.to(torch.float64) for t in (step, start, times))
    if dtype != torch.float64:
        return (start + step * times).to(dtype)
    wide = step * (2.0**27 + 1)
    upper = wide - (wide - step)
    product, rest = upper * times, (step - upper) * times
    total = start + product
    other = total - start
    error = (start - (total - other)) + (product - other)
    return total + (error + rest)


def _ends(column: Tensor, limits: Sequence[float] | None) -> tuple[Any, Any]:
    """The outermost edges: as given, or the smallest and largest element; never the same."""
    if limits is not None:
        low, high = limits
        return (low - 0.5, high + 0.5) if low == high else (low, high)
    least, most = column.amin(), column.amax()
    half = torch.where(least == most, 0.5, 0.0).to(column.dtype)
    return least - half, most + half


def _bins(column: Tensor, edges: Tensor) -> Tensor:
    """The bin of each element; -1 outside. The last bin holds its upper edge too."""
    count = edges.shape[0] - 1
    place = torch.bucketize(column, edges, right=True) - 1
    place = torch.where(column == edges[-1], count - 1, place)
    return torch.where((place >= 0) & (place < count), place, -1)


def _counted(
    points: Tensor, edges: Sequence[Tensor], weight: Tensor | None, density: bool
) -> Tensor:
    """The weights of points [n, axes] over the bins of all axes."""
    shape = [e.shape[0] - 1 for e in edges]
    flat = torch.zeros_like(points[:, 0], dtype=torch.int64)
    inside = torch.ones_like(flat, dtype=torch.bool)
    for axis, (size, edge) in enumerate(zip(shape, edges)):
        place = _bins(points[:, axis].contiguous(), edge)
        inside = inside & (place >= 0)
        flat = flat * size + place
    total = math.prod(shape)
    weights = torch.ones_like(points[:, 0]) if weight is None else weight.reshape(-1)
    # Values outside are counted in one more bin after the last, which is dropped.
    room = torch.zeros(total + 1, dtype=points.dtype, device=points.device)
    found = room.scatter_add(0, torch.where(inside, flat, total), weights)[:total].view(shape)
    if density:
        found = found / found.sum()
        for axis, edge in enumerate(edges):
            found = found / edge.diff().view([-1, *[1] * (len(shape) - axis - 1)])
    return found


def histogram(
    input: Tensor,
    bins: Tensor | int,
    *,
    range: Sequence[float] | None = None,
    weight: Tensor | None = None,
    density: bool = False,
) -> Any:
    """Over bins with given edges, or over so many equal ones."""
    points = input.reshape(-1, 1)
    edges = _edges(points, [bins], range)
    return torch.return_types.histogram((_counted(points, edges, weight, density), edges[0]))


def histogramdd(
    input: Tensor,
    bins: Sequence[Tensor] | Sequence[int] | int,
    range: Sequence[float] | None = None,
    weight: Tensor | None = None,
    density: bool = False,
) -> Any:
    """The same over several axes at once, the last of the input: [..., axes]."""
    points = input.reshape(-1, input.shape[-1])
    each = [bins] * points.shape[1] if isinstance(bins, int) else bins
    edges = _edges(points, each, range)
    return torch.return_types.histogramdd((_counted(points, edges, weight, density), edges))


def _edges(
    points: Tensor, bins: Sequence[Tensor | int], limits: Sequence[float] | None
) -> tuple[Tensor, ...]:
    """The edges of the bins of each axis: as given, or of so many equal bins."""
    found = []
    for axis, each in enumerate(bins):
        if isinstance(each, Tensor):
            found.append(each.clone())
            continue
        own = None if limits is None else limits[2 * axis : 2 * axis + 2]
        found.append(_spaced(*_ends(points[:, axis], own), each + 1, points))
    return tuple(found)
