"""Numbers that 16 bits do not hold: where they stand in a program."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx.node import Node

from strop.compiler.ir.nodes import arguments
from strop.compiler.ir.program import Program


def is_too_large(number: float, dtype: torch.dtype) -> bool:
    """Whether a finite number is beyond the largest one of a dtype."""
    return math.isfinite(number) and abs(number) > torch.finfo(dtype).max


def is_too_small(number: float, dtype: torch.dtype) -> bool:
    """Whether a number above 0 is below those that a dtype holds with all digits."""
    return 0 < abs(number) < torch.finfo(dtype).tiny


def numbers_in(node: Node) -> Iterator[float]:
    """The numbers that are written into a call of an operator, without sizes and axes."""
    if isinstance(node.target, OpOverload):
        for argument, value in zip(node.target._schema.arguments, arguments(node).values()):
            if type(value) in (int, float) and _holds_numbers(argument.type):
                yield float(value)


def _holds_numbers(kind: Any) -> bool:
    """Whether an argument of a schema's type is a number to compute with."""
    if kind.kind() == "OptionalType":
        kind = kind.getElementType()
    return kind.kind() in ("NumberType", "TensorType", "FloatType")


def large_weights(program: Program, dtype: torch.dtype) -> dict[Node, float]:
    """The weights in float32 that hold a finite number beyond a dtype, and the largest one."""
    found = {}
    for node in program.graph.find_nodes(op="get_attr"):
        weight = program.weights[str(node.target)]
        if weight.dtype == torch.float32 and weight.numel():
            largest = _largest_finite(weight.detach())
            if is_too_large(largest, dtype):
                found[node] = largest
    return found


def _largest_finite(weight: torch.Tensor) -> float:
    """The largest magnitude among the finite numbers of a tensor; 0 where it has none."""
    low, high = (float(extreme) for extreme in weight.aminmax())
    if math.isfinite(low) and math.isfinite(high):
        return max(-low, high)
    finite = weight[weight.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0
