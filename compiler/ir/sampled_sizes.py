"""The sizes at which a statement about dims is false, by trying the sizes that may show it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import sympy

from strop.compiler.ir.contract import Dim

_EVERY_SIZE_UP_TO = 40
_UNBOUNDED = 4096


def failing_sizes(expr: Any, dims: dict[Any, Dim]) -> list[dict[str, int]]:
    """The two smallest sets of sizes at which an expression is false."""
    found = [
        sizes
        for sizes in itertools.product(*(_samples(d, len(dims), expr) for d in dims.values()))
        if _fails(expr, dict(zip(dims, map(sympy.Integer, sizes))))
    ]
    smallest = sorted(found, key=math.prod)[:2]
    return [{d.name: n for d, n in zip(dims.values(), sizes)} for sizes in smallest]


def _fails(expr: Any, sizes: Mapping[Any, Any]) -> bool:
    """Whether an assumption is false; one that divides by zero at these sizes is no better."""
    try:
        return bool(expr.xreplace(sizes) == sympy.false)
    except ZeroDivisionError:
        return True


def _samples(dim: Dim, together: int, expr: Any) -> Iterable[int]:
    """All sizes of a small dim; of a large one the ends, and numbers round powers of two and round
    those in the expression."""
    high = dim.max if dim.max is not None else _UNBOUNDED
    if together == 1 and high - dim.min <= _EVERY_SIZE_UP_TO:
        return range(dim.min, high + 1)
    powers = [2**i + d for i in range(1, 13) for d in (-1, 0, 1)]
    named = {abs(int(n)) + d for n in expr.atoms(sympy.Integer) for d in (-1, 0, 1)}
    some = {dim.min, dim.min + 1, high - 1, high, *range(3, 17), *powers}
    kept = sorted(n for n in some | named if dim.min <= n <= high)
    few = {*kept[:10], *kept[-2:], *(n for n in named if dim.min <= n <= high)}
    return kept if together == 1 else sorted(few)
