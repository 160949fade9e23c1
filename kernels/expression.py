"""Whole-number expressions as text: grids, sizes and conditions of a launch.

They are data of an artifact, so they are computed by walking their syntax, never by running them.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from functools import lru_cache

LONGEST = 2_000
_LARGEST = 2**63


def cdiv(a: int, b: int) -> int:
    """The quotient of two whole numbers, rounded up."""
    return -(-a // b)


def next_power_of_2(n: int) -> int:
    """The least power of two that is at least n; 1 for n below 1."""
    return 1 << max(n - 1, 0).bit_length()


_OPERATORS: dict[type[ast.AST], Callable[..., int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
FUNCTIONS: dict[str, Callable[..., int]] = {
    "cdiv": cdiv,
    "next_power_of_2": next_power_of_2,
    "min": min,
    "max": max,
}


def evaluate(text: str, sizes: Mapping[str, int]) -> int:
    """The value of an expression, such as ``cdiv(rows, BLOCK)``; a condition gives 0 or 1.

    Args:
        text: numbers, names, + - * // % and comparisons, ``and``, ``cdiv``, ``next_power_of_2``,
            ``min`` and ``max``.
        sizes: what the names stand for.

    Raises:
        ValueError: the text is no such expression, a name is unknown, a divisor is zero, or a
            result has more than 63 bits.
    """
    try:
        return _value(_parsed(text), sizes)
    except (SyntaxError, KeyError, TypeError, ZeroDivisionError, RecursionError) as error:
        raise ValueError(f"'{text[:80]}' cannot be computed: {error}") from error


def names_in(text: str) -> set[str]:
    """The names of sizes in an expression.

    Raises:
        ValueError: the text is no expression.
    """
    try:
        tree = _parsed(text)
    except SyntaxError as error:
        raise ValueError(f"'{text[:80]}' is no expression: {error}") from error
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - FUNCTIONS.keys()


@lru_cache(maxsize=4096)
def _parsed(text: str) -> ast.expr:
    if len(text) > LONGEST:
        raise ValueError(f"an expression of {len(text)} characters is too long")
    return ast.parse(text.strip(), mode="eval").body


def _value(node: ast.expr, sizes: Mapping[str, int]) -> int:
    match node:
        case ast.Constant(value=int() as number):
            return number
        case ast.Name(id=name):
            return sizes[name]
        case ast.UnaryOp(op=op, operand=operand):
            return _bounded(_OPERATORS[type(op)](_value(operand, sizes)))
        case ast.BinOp(left=left, op=op, right=right):
            return _bounded(_OPERATORS[type(op)](_value(left, sizes), _value(right, sizes)))
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return int(_OPERATORS[type(op)](_value(left, sizes), _value(right, sizes)))
        case ast.BoolOp(op=ast.And(), values=values):
            return int(all(_value(part, sizes) for part in values))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
            return _bounded(FUNCTIONS[name](*(_value(arg, sizes) for arg in args)))
    raise TypeError(f"{type(node).__name__} is not allowed here")


def _bounded(value: int) -> int:
    if not -_LARGEST < value < _LARGEST:
        raise ValueError("a size has more than 63 bits")
    return value
