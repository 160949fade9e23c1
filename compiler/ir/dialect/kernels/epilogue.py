"""What kernels of matrix products do with their sums before they are rounded and stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
}


def activated(x: Tensor, activation: str) -> Tensor:
    """An activation by the name that kernels know it by.

    Raises:
        ValueError: there is no such activation.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation '{activation}' is none of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[activation](x)


def finished(
    sums: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    activation: str,
    dtype: torch.dtype,
) -> Tensor:
    """activation(sums + bias) + residual, rounded once.

    Args:
        sums: [..., out] float32.
        bias: [out] float.
        residual: [..., out] float.
        activation: a key of ``ACTIVATIONS``.
        dtype: of the result.
    """
    if bias is not None:
        sums = sums + bias.float()
    out = activated(sums, activation)
    if residual is not None:
        out = out + residual.float()
    return out.to(dtype)
