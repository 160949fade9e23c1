"""The arguments that kernels on packed weights have in common, and what these refuse."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from strop.kernels import activation as activations
from strop.kernels.kernel import Constant
from strop.kernels.packing import packed_bytes, why_not


def packed_operands(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    zero_point: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    y: Tensor,
    bits: int,
    activation: str,
) -> tuple[dict[str, Any], dict[str, Constant]]:
    """Arguments in the order of the kernels' parameters, and constants; see ``gemm_packed``.

    Raises:
        ValueError: the activation is unknown, or the weight has other bits, groups or bytes.
        TypeError: x is neither float16 nor bfloat16.
    """
    _check(x, weight, scale, bits, activation)
    (rows, depth), (columns, groups) = x.shape, scale.shape
    words = weight.view(torch.int32)
    arguments = {
        "x": x, "weight": words, "scale": scale, "zero_point": zero_point,
        "bias": bias, "residual": residual, "y": y,
        "rows": rows, "columns": columns, "depth": depth, "groups": groups,
        "x_stride": x.stride(0), "weight_stride": words.stride(0),
        "scale_stride": scale.stride(0), "zero_stride": _stride(zero_point),
        "residual_stride": _stride(residual),
    }  # fmt: skip
    constants: dict[str, Constant] = {
        "ACTIVATION": activation,
        "BITS": bits,
        "GROUP_SIZE": depth // groups if groups > 1 else 0,
    }
    return arguments, constants


def _stride(optional: Tensor | None) -> int:
    return 0 if optional is None else optional.stride(0)


def _check(x: Tensor, weight: Tensor, scale: Tensor, bits: int, activation: str) -> None:
    activations.check(activation)
    if x.dtype not in (torch.float16, torch.bfloat16):
        # Tensor cores would round the numbers of float32 to TF32, with 10 digits instead of 23.
        raise TypeError(f"products are of float16 or bfloat16, but x is {x.dtype}")
    depth, (columns, groups) = x.shape[1], scale.shape
    if reason := why_not(depth, groups, bits):
        raise ValueError(reason)
    wanted, found = [columns, packed_bytes(depth, bits)], list(weight.shape)
    if found != wanted:
        raise ValueError(f"a packed weight of shape {wanted} is needed, not {found}")
