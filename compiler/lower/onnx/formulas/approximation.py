"""Polynomials, ratios of them, and Chebyshev series, evaluated element by element."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Ratio = tuple[Sequence[float], Sequence[float]]
"""The coefficients of a numerator and of a denominator, from the constant term on."""


def polynomial(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    """``c0 + c1 x + c2 x² + …`` by Horner's rule."""
    result = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = result * x + coefficient
    return result


def ratio(x: Tensor, parts: Ratio) -> Tensor:
    """One polynomial over another."""
    return polynomial(x, parts[0]) / polynomial(x, parts[1])


def chebyshev_series(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    """``c0 / 2 + c1 T1(x / 2) + c2 T2(x / 2) + …`` by Clenshaw's recurrence."""
    last, before = torch.zeros_like(x), torch.zeros_like(x)
    for coefficient in reversed(coefficients[1:]):
        last, before = x * last - before + coefficient, last
    return (x * last + coefficients[0]) / 2 - before


def as_float(x: Tensor) -> Tensor:
    """Convert to the dtype of a function's result: the argument's, or float32 for an integer."""
    return x if x.is_floating_point() else x.to(torch.float32)


def like(x: Tensor, value: Tensor) -> Tensor:
    """Convert what was computed in float64 to the dtype of the result."""
    return value.to(x.dtype if x.is_floating_point() else torch.float32)


def operands(a: Tensor | float, b: Tensor | float) -> tuple[Tensor, Tensor]:
    """Two tensors or numbers, broadcast, in the dtype of their result: a float."""
    dtype = torch.result_type(a, b)
    dtype = dtype if dtype.is_floating_point else torch.float32
    first, second = torch.broadcast_tensors(_cast(a, dtype), _cast(b, dtype))
    return first, second


def _cast(value: Tensor | float, dtype: torch.dtype) -> Tensor:
    if isinstance(value, Tensor):
        return value.to(dtype)
    return torch.scalar_tensor(value, dtype=dtype)
