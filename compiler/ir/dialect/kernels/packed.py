"""Linear layers on packed weights of 4 or 8 bits in groups."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from strop.compiler.ir.dialect.kernels.epilogue import finished
from strop.compiler.ir.dialect.registry import define
from strop.compiler.ir.dialect.weight_only import whole_numbers
from strop.kernels.packing import pack, unpack


def kernel_bits(bits: int) -> int:
    """The bits in which kernels hold whole numbers of 2 to 8 bits."""
    return 4 if bits <= 4 else 8


@define("packed_numbers(Tensor weight, Tensor scale, Tensor? zero_point, int bits) -> Tensor")
def packed_numbers(weight: Tensor, scale: Tensor, zero_point: Tensor | None, bits: int) -> Tensor:
    """The ``whole_numbers`` of a weight as ``strop.kernels.packing`` lays them out in bytes.

    weight: [out, in] float; scale: [out, groups] float; zero_point: [out, groups] int; bits: 2
    to 8; result: [out, packed_bytes(in, kernel_bits(bits))] uint8.
    """
    return pack(whole_numbers(weight, scale, zero_point, bits), kernel_bits(bits))


@define(
    "packed_linear(Tensor x, Tensor weight, Tensor scale, Tensor? zero_point, Tensor? bias, "
    "Tensor? residual, int bits, str activation) -> Tensor"
)
def packed_linear(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    zero_point: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    bits: int,
    activation: str,
) -> Tensor:
    """activation(x w^T + bias) + residual with w = (number - zero) * scale.

    Computed in float32 and rounded once to x's dtype.

    x: [..., in] float; weight: [out, packed_bytes(in, bits)] uint8; scale: [out, groups] float;
    zero_point: [out, groups] uint8, 2^(bits - 1) where there is none; bias: [out] float; residual:
    [..., out] like x; bits: 4 or 8.
    """
    numbers = unpack(weight, bits, x.shape[-1]).float()
    zero = 1 << (bits - 1) if zero_point is None else zero_point.float()[:, :, None]
    groups = numbers.reshape(numbers.shape[0], scale.shape[1], -1) - zero
    wide = (groups * scale.float()[:, :, None]).flatten(1)
    return finished(F.linear(x.float(), wide), bias, residual, activation, x.dtype)
