"""Arithmetic on sizes in a program from a file: a few functions, and results of bounded size.

Python's integers grow without end: ``10 ** 10 ** 9`` would be computed, and a size that is squared
thirty times has a billion digits. So the result of every call is looked at first, on numbers that
stand for the sizes: those at which the program was traced, and at least 2, since powers of 0 and 1
do not show that they grow. Within these bounds no result at other sizes has more than a few
thousand bits.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import sympy
import torch
from torch.fx.node import Node

from strop.compiler.util.errors import UsageError

Number = int | float | bool
# The largest size of an axis, and of any computed size.
LARGEST = 2**63
# Parts of an expression: halving five times, rounded, with padding, has some forty.
MOST_PARTS = 500

FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{
        f"operator.{f.__name__}": f
        for f in (
            operator.add, operator.sub, operator.mul, operator.floordiv, operator.truediv,
            operator.mod, operator.neg, operator.pow, operator.getitem, operator.eq, operator.ne,
            operator.lt, operator.le, operator.gt, operator.ge, operator.and_, operator.or_,
        )
    },
    **{
        f"torch.{f.__name__}": f
        for f in (torch.sym_float, torch.sym_int, torch.sym_max, torch.sym_min, torch.sym_not,
                  torch.sym_ite, torch.sym_sum)
    },
    **{f"math.{f.__name__}": f for f in (math.ceil, math.floor, math.trunc, round)},
}  # fmt: skip
NAMES = {function: name for name, function in FUNCTIONS.items()}


def require_bounded(function: Any, args: Sequence[Any], numbers: Mapping[Node, Number]) -> Number:
    """What a call gives on the numbers that stand for its arguments.

    Args:
        function: one of ``FUNCTIONS``, but not ``operator.getitem``.
        args: of the call: numbers and nodes; of a sum a list of them.
        numbers: by node, what stands for it.

    Raises:
        UsageError: an argument is no number, or the result is too large.
    """
    values: list[Any] = [
        [_number(v, numbers) for v in a] if _is_sum(function, a) else _number(a, numbers)
        for a in args
    ]
    if function is operator.pow and not _is_small_power(args):
        raise UsageError("a size is raised to a power that is not a small number")
    try:
        result: Number = function(*values)
    except (ArithmeticError, TypeError, ValueError) as error:
        raise UsageError(f"the arithmetic on sizes fails: {error}") from error
    if not -LARGEST < result < LARGEST:
        raise UsageError("a size that is computed has more than 63 bits")
    return result


def _number(value: Any, numbers: Mapping[Node, Number]) -> Number:
    if isinstance(value, Node) and value in numbers:
        return numbers[value]
    if isinstance(value, (bool, int, float)) and -LARGEST < value < LARGEST:
        return value
    raise UsageError("arithmetic on sizes is done on something that is not a size")


def _is_sum(function: Any, argument: Any) -> bool:
    """Whether an argument is a list of sizes, which only a sum of them takes."""
    return function is torch.sym_sum and isinstance(argument, (list, tuple))


def _is_small_power(args: Sequence[Any]) -> bool:
    return len(args) == 2 and isinstance(args[1], (int, float)) and -64 <= args[1] <= 64


def stand_in(value: Any) -> Number | None:
    """The number that stands for a size; None for what is no size.

    Raises:
        UsageError: the size is too large, or the expression of one too long.
    """
    if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
        _require_short(value.node.expr)
        hint = value.node.hint
        if isinstance(value, torch.SymBool):
            return bool(hint)
        value = 2 if hint is None else max(hint, 2)
    if not isinstance(value, (bool, int, float)):
        return None
    if not -LARGEST < value < LARGEST:
        raise UsageError("a size that is computed has more than 63 bits")
    return value


def require_short_sizes(tensor: torch.Tensor) -> None:
    """Check the sizes of a tensor against the same bounds.

    Raises:
        UsageError: one is too large, or its expression too long.
    """
    for size in tensor.shape:
        stand_in(size)


def _require_short(expr: Any) -> None:
    parts: Iterator[Any] = sympy.preorder_traversal(expr)
    if next(itertools.islice(parts, MOST_PARTS, None), None) is not None:
        raise UsageError("a size is computed by an expression that is too long")
