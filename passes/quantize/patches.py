"""What a layer multiplies with the weights of one output channel, as rows of a matrix."""

from __future__ import annotations

from itertools import chain
from math import ceil
from typing import Any

from torch import Tensor
from torch.fx.node import Node
from torch.nn import functional as F

from strop.compiler.ir.nodes import arguments, per_axis, shape_of
from strop.passes.quantize.int8_operators import CONVOLUTION_LAYERS


def patches(layer: Node, x: Tensor, most: int) -> Tensor:
    """Rows x such that the layer gives weight @ x plus its bias at each place.

    Args:
        layer: a linear layer or a convolution.
        x: its input.
        most: rows, of which places far apart are taken where there are more.

    Returns:
        [groups, rows, columns], where a group's columns are the inputs of its output channels.
    """
    if layer.target not in CONVOLUTION_LAYERS:
        rows = x.reshape(1, -1, x.shape[-1])
        return rows[:, :: ceil(rows.shape[1] / most)]
    values = arguments(layer)
    kernel = [int(size) for size in shape_of(values["weight"])[2:]]
    axes = len(kernel)
    dilation = per_axis(values["dilation"], axes)
    made = F.pad(x, _pads(values, kernel, dilation))
    for axis, (size, step, spread) in enumerate(
        zip(kernel, per_axis(values["stride"], axes), dilation), 2
    ):
        made = made.unfold(axis, spread * (size - 1) + 1, step)[..., ::spread]
    for axis, step in enumerate(_steps(made.shape[: axes + 2], most), 2):
        made = made[(slice(None),) * axis + (slice(None, None, step),)]
    batch, channels, *places = made.shape[: axes + 2]
    groups = values["groups"]
    split = made.reshape(batch, groups, channels // groups, *places, *kernel)
    spatial = range(3, 3 + axes)
    ordered = split.permute(1, 0, *spatial, 2, *range(3 + axes, 3 + 2 * axes))
    columns = channels // groups
    for size in kernel:
        columns *= size
    return ordered.reshape(groups, -1, columns)


def _pads(values: dict[str, Any], kernel: list[int], dilation: list[int]) -> list[int]:
    """The zeros before and after each axis, the last axis first, as ``F.pad`` takes them."""
    axes, padding = len(kernel), values["pads"] if "pads" in values else values["padding"]
    if padding == "valid":
        padding = 0
    if padding == "same":
        total = [spread * (size - 1) for size, spread in zip(kernel, dilation)]
        sides = [(t // 2, t - t // 2) for t in total]
    elif "pads" in values:
        sides = list(zip(padding[:axes], padding[axes:]))
    else:
        sides = [(p, p) for p in per_axis(padding, axes)]
    return list(chain(*reversed(sides)))


def _steps(shape: tuple[int, ...], most: int) -> list[int]:
    """For each spatial axis, how far apart places are taken for few enough rows."""
    rows, axes = shape[0], shape[2:]
    for size in axes:
        rows *= size
    step = ceil((rows / most) ** (1 / len(axes))) if rows > most else 1
    return [min(step, size) for size in axes]
