"""What tests of kernels of matrix products share: references in float64, and one tile for all."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from kernel_cases import strided
from torch import Tensor

from strop.kernels.kernel import Bucket, Configuration, Kernel

HALVES = [torch.float16, torch.bfloat16]
# Rows, columns, depth: of rows that are aligned to 16 numbers, and of others.
SHAPES = [
    (1, 1, 1), (5, 123, 64), (16, 65, 80), (17, 65, 123), (33, 31, 48), (65, 5, 256), (123, 63, 5),
]  # fmt: skip


def apart(x: Tensor) -> Tensor:
    """The same values with rows further apart, aligned to 16 numbers if they were."""
    return strided(x, 16 if x.shape[-1] % 16 == 0 else 3)


def activated(x: Tensor, activation: str) -> Tensor:
    """The activation by torch."""
    match activation:
        case "relu":
            return F.relu(x)
        case "gelu" | "gelu_tanh":
            return F.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")
        case "silu":
            return F.silu(x)
    return x


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x weight^T + bias in float64."""
    return F.linear(x.double(), weight.double(), None if bias is None else bias.double())


def only(kernel: Kernel, configuration: Configuration) -> Kernel:
    """The kernel with one configuration for all sizes."""
    return replace(kernel, buckets=(Bucket("", configuration),))
