"""What tests of the pass that selects kernels share: programs before it, and the pass on a GPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Context
from strop.compiler.rewriting.passes import PassResult
from strop.compiler.targets.target import Target, get_target
from strop.passes.kernels.select import SelectKernels

strop = torch.ops.strop
GPU = get_target("triton:sm90")
HALF = torch.float16


def random(*shape: int, dtype: torch.dtype = HALF, seed: int = 0) -> Tensor:
    """Random numbers of a normal distribution."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def selected(program: Program, target: Target = GPU, **options: Any) -> PassResult:
    """The pass on a program."""
    return SelectKernels(**options).run(program, context=Context(target=target))


def reasons(result: PassResult) -> list[str]:
    """Why things were left as they are."""
    return [miss.reason for miss in result.log.misses]


def int8(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear layer as the pass ``quantize`` leaves it with scales of rows."""
    result: Tensor = strop.linear_w8a8_rows(x, weight, strop.int8_scale(weight), bias)
    return result


def fp8(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear layer as the pass ``quantize-fp8`` leaves it."""
    result: Tensor = strop.linear_fp8(x, weight, strop.fp8_scale(weight), bias)
    return result


def few_bits(
    x: Tensor, weight: Tensor, bits: int = 4, groups: int = 1, symmetric: bool = False
) -> Tensor:
    """A linear layer as the pass ``quantize-weights`` leaves it."""
    scale = strop.group_scale(weight, groups, bits, symmetric)
    zero = None if symmetric else strop.group_zero_point(weight, scale, bits)
    result: Tensor = strop.linear_nbits(x, weight, scale, zero, None, bits)
    return result
