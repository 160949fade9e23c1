"""Convolution with zeros around its input, as many on each side as one likes."""

from __future__ import annotations

from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor

from strop.compiler.ir.dialect.registry import define

_BY_AXES = {1: torch.conv1d, 2: torch.conv2d, 3: torch.conv3d}


@define(
    "padded_conv(Tensor x, Tensor weight, Tensor? bias, int[] stride, int[] pads, int[] dilation, "
    "int groups) -> Tensor"
)
def padded_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    pads: list[int],
    dilation: list[int],
    groups: int,
) -> Tensor:
    """Convolution of x [batch, channels, *spatial] with weight [out, channels / groups, *kernel].

    ``pads`` are the zeros before each spatial axis, then those after each: torch's own operators
    take one number for both sides.
    """
    axes = len(pads) // 2
    sides = zip(pads[:axes], pads[axes:])
    last_axis_first = list(chain(*reversed(list(sides))))
    return _BY_AXES[axes](F.pad(x, last_axis_first), weight, bias, stride, 0, dilation, groups)
