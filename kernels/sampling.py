"""Launches with symbolic sizes, at plain ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import SymInt, Tensor

from strop.kernels.kernel import Launch
from strop.kernels.specialization import plain

# A symbol of which nothing is known.
_UNKNOWN = 128
# Each stands for the sizes down to the one before, the last one for all above as well.
_SAMPLES = tuple(2**power for power in range(17))


def samples(size: int | SymInt) -> tuple[int, ...]:
    """Powers of two that stand for the values of a size; the size itself where it is plain."""
    number = plain(size)
    if number is not None:
        return (number,)
    assert isinstance(size, SymInt)
    bounds = size.node.shape_env.bound_sympy(size.node.expr)
    return tuple(s for s in _SAMPLES if s >= bounds.lower and s < 2 * bounds.upper) or _SAMPLES[-1:]


def at(launch: Launch, axis: str, size: int) -> Launch:
    """The launch where one of its whole numbers has a value.

    Multiples of that number follow it; symbols that have nothing to do with it get the value that
    the model's example inputs have. Tensors have no memory.
    """
    symbol = launch.arguments[axis]

    def number(value: int | SymInt) -> int:
        known = plain(value)
        return _number(value, symbol, size) if known is None else known

    arguments = {name: _replaced(value, number) for name, value in launch.arguments.items()}
    return Launch(launch.kernel, arguments, launch.constants)


def _number(value: int | SymInt, symbol: int | SymInt, size: int) -> int:
    assert isinstance(value, SymInt)
    if isinstance(symbol, SymInt):
        ratio = value.node.expr / symbol.node.expr
        if ratio.is_Integer:
            return int(ratio) * size
    return int(value.node.hint) if value.node.has_hint() else _UNKNOWN


def _replaced(value: Any, number: Callable[[int | SymInt], int]) -> Any:
    match value:
        case Tensor():
            shape, stride = ([number(n) for n in of] for of in (value.shape, value.stride()))
            return torch.empty_strided(shape, stride, dtype=value.dtype, device="meta")
        case SymInt():
            return number(value)
    return value
