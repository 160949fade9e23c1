"""Pooling over windows that ONNX has no operator for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from strop.compiler.lower.onnx.formulas.registry import formula

aten = torch.ops.aten


def _windows(x: Tensor, axis: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Windows of adaptive pooling along one axis of the input.

    Returns:
        positions [count, width], clamped into the axis; which of them belong to the window, of
        the same shape; the windows' sizes [count].
    """
    size = x.shape[axis]
    output = torch.arange(count, device=x.device)
    starts = output * size // count
    ends = ((output + 1) * size + count - 1) // count
    # No window is wider: it covers size / count elements, and parts of two more.
    width = torch.arange(size // count + 2, device=x.device)
    positions = starts.unsqueeze(-1) + width
    inside = positions < ends.unsqueeze(-1)
    return positions.clamp(max=size - 1), inside, ends - starts


def _take(x: Tensor, axis: int, positions: Tensor) -> Tensor:
    """One axis as windows: [..., count, width, ...]."""
    windows: Tensor = x[(slice(None),) * axis + (positions,)]
    return windows


def _beside(values: Tensor, axis: int, rank: int) -> Tensor:
    """Values of [count, width] shaped to be broadcast over windows at ``axis`` and behind it."""
    return values.view([*values.shape, *[1] * (rank - axis - 1)])


@formula(
    aten._adaptive_avg_pool2d.default,
    aten._adaptive_avg_pool3d.default,
)
def adaptive_avg_pool(x: Tensor, output_size: Sequence[int]) -> Tensor:
    """Means over windows, one axis after the other: each window is a product of intervals."""
    count = len(output_size)
    for axis, size in zip(range(x.dim() - count, x.dim()), output_size):
        positions, inside, length = _windows(x, axis, size)
        windows = _take(x, axis, positions)
        kept = torch.where(_beside(inside, axis, x.dim()), windows, 0.0)
        shape = [-1, *[1] * (x.dim() - axis - 1)]
        x = kept.sum(axis + 1) / length.to(x.dtype).view(shape)
    return x


@formula(aten.adaptive_max_pool2d.default, aten.adaptive_max_pool3d.default)
def adaptive_max_pool(x: Tensor, output_size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Largest values over windows, and their positions in the flattened spatial axes."""
    count = len(output_size)
    spatial = list(range(x.dim() - count, x.dim()))
    strides = [1] * count
    for i in reversed(range(count - 1)):
        strides[i] = strides[i + 1] * x.shape[spatial[i + 1]]
    place = torch.zeros_like(x, dtype=torch.int64)
    for axis, stride in zip(spatial, strides):
        shape = [1] * x.dim()
        shape[axis] = -1
        place = place + (torch.arange(x.shape[axis], device=x.device) * stride).view(shape)
    for axis, size in zip(spatial, output_size):
        x, place = _largest(x, place, axis, size)
    return x, place


def _largest(x: Tensor, place: Tensor, axis: int, size: int) -> tuple[Tensor, Tensor]:
    """Pooling along one axis; of equal values the one that comes first in the flattened axes."""
    positions, inside, _ = _windows(x, axis, size)
    windows, places = _take(x, axis, positions), _take(place, axis, positions)
    within = _beside(inside, axis, x.dim())
    windows = torch.where(within, windows, -torch.inf)
    best = windows.amax(axis + 1, keepdim=True)
    last = torch.iinfo(torch.int64).max
    first = torch.where((windows == best) & within, places, last).amin(axis + 1)
    return best.squeeze(axis + 1), first


@formula(aten.avg_pool2d.default, aten.avg_pool3d.default)
def avg_pool(
    x: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Sums over windows, divided by what torch counts as a window's size."""
    # torch passes a kernel size for every axis.
    count = len(kernel_size)
    kernel, steps, pads = (_each(v, count) for v in (kernel_size, stride or kernel_size, padding))
    total = torch.ones((), dtype=x.dtype, device=x.device)
    for axis, k, s, p in zip(range(x.dim() - count, x.dim()), kernel, steps, pads):
        positions, inside, length = _strided(x, axis, k, s, p, ceil_mode, count_include_pad)
        kept = torch.where(_beside(inside, axis, x.dim()), _take(x, axis, positions), 0.0)
        x = kept.sum(axis + 1)
        total = total.unsqueeze(-1) * length.to(x.dtype)
    return x / (total if divisor_override is None else divisor_override)


def _each(value: Sequence[int], count: int) -> list[int]:
    return list(value) * count if len(value) == 1 else list(value)


def _strided(
    x: Tensor, axis: int, kernel: int, stride: int, pad: int, ceil: bool, with_pad: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Windows of pooling along one axis, as ``_windows`` gives them.

    The last window of ``ceil`` begins within the input or its left padding, and ends with the
    right padding.
    """
    size = x.shape[axis]
    span = size + 2 * pad - kernel
    count = span // stride + 1
    if ceil:
        within = (size + pad - 1) // stride + 1
        count = torch.sym_min((span + stride - 1) // stride + 1, within)
    starts = torch.arange(count, device=x.device) * stride - pad
    positions = starts.unsqueeze(-1) + torch.arange(kernel, device=x.device)
    inside = (positions >= 0) & (positions < size)
    ends = (starts + kernel).clamp(max=size + pad)
    length = ends - starts if with_pad else ends.clamp(max=size) - starts.clamp(min=0)
    return positions.clamp(0, size - 1), inside, length
