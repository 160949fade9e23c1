"""What the tests of pass ``complex`` share: complex values of reals, and programs without them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from program_tools import program_of, same_numbers
from torch import Tensor

from strop.compiler.ir.program import Program
from strop.passes.legalize.complex import SplitComplex

Function = Callable[..., Any]


def z(x: Tensor) -> Tensor:
    """[..., 8] -> complex [..., 4]."""
    return torch.view_as_complex(x.unflatten(-1, (4, 2)))


def w(x: Tensor) -> Tensor:
    """Another complex value of the same shape."""
    return torch.complex(x[..., 4:], x[..., :4] - 2)


def real(x: Tensor) -> Tensor:
    return x[..., :4] + 2


def parts(value: Any) -> list[Tensor]:
    """The results as real tensors."""
    values = value if isinstance(value, (tuple, list)) else [value]
    return [torch.view_as_real(v.resolve_conj()) if v.is_complex() else v for v in values]


def split(function: Function, *inputs: Tensor, dims: Any = None) -> tuple[Program, Program]:
    """A program before the pass, and after it, without any complex value."""
    before = program_of(lambda *x: parts(function(*x)), *inputs, dims=dims)
    result = SplitComplex().run(before)
    assert result.modified, result.log.misses
    assert "c64" not in str(result.program) and "c128" not in str(result.program)
    return before, result.program


def check(function: Function, *inputs: Tensor, tolerance: float = 1e-5) -> None:
    same_numbers(*split(function, *inputs), *inputs, tolerance=tolerance)
