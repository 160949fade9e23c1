"""Torch's symbolic sizes as the text that plans hold; see ``strop.kernels.expression``."""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from typing import Any

import torch

from strop.compiler.ir.data_sizes import data_symbols
from strop.compiler.ir.nodes import expression
from strop.compiler.lower.triton.refusal import NotLowered
from strop.kernels.expression import FUNCTIONS, LONGEST

_DIVISIONS = {"FloorDiv": "//", "CleanDiv": "//", "Mod": "%", "PythonMod": "%"}
_MOST_FACTORS = 8


def size_names(symbols: Mapping[str, str]) -> dict[str, str]:
    """The name of each symbol in expressions: the user's own, where it can be one.

    Args:
        symbols: the user's names by torch's symbols.
    """
    named = {
        symbol: name
        for symbol, name in symbols.items()
        if name.isidentifier() and not keyword.iskeyword(name) and name not in FUNCTIONS
    }
    return {symbol: named.get(symbol, f"size_{symbol}") for symbol in symbols}


class Expressions:
    """Writes sizes as text over the names of dims."""

    def __init__(self, symbols: Mapping[str, str]) -> None:
        self.names = size_names(symbols)
        self._known: dict[Any, str] = {}

    def text(self, size: int | torch.SymInt) -> str:
        """A size as text.

        Raises:
            NotLowered: it depends on the data, or is computed by a function that plans lack.
        """
        expr = expression(size)
        if isinstance(expr, int):
            return str(expr)
        if data_symbols(size):
            raise NotLowered("it takes a size that depends on the data")
        if expr not in self._known:
            self._known[expr] = self._bounded(_outermost(self._text(expr)))
        return self._known[expr]

    def _bounded(self, text: str) -> str:
        if len(text) > LONGEST:
            raise NotLowered(f"the size {text[:60]}... is computed by too long an expression")
        return text

    def _text(self, expr: Any) -> str:
        kind = type(expr).__name__
        if expr.is_Integer:
            return str(expr)
        if expr.is_Symbol:
            return self.names[str(expr)]
        if expr.is_Add or expr.is_Mul:
            # In the order of the text, so that equal builds are equal.
            parts = sorted(self._text(a) for a in expr.args)
            return f"({(' + ' if expr.is_Add else '*').join(parts)})"
        if kind in ("Pow", "PowByNatural"):
            return self._power(*expr.args)
        if kind in _DIVISIONS:
            a, b = (self._text(part) for part in expr.args)
            return f"({a} {_DIVISIONS[kind]} {b})"
        if kind in ("Max", "Min"):
            return f"{kind.lower()}({', '.join(sorted(self._text(a) for a in expr.args))})"
        raise NotLowered(f"the size {expr} is computed by {kind}, which no plan can hold")

    def _power(self, base: Any, exponent: Any) -> str:
        if not exponent.is_Integer or not 0 < int(exponent) <= _MOST_FACTORS:
            raise NotLowered(f"a size is raised to the power {exponent}, which no plan can hold")
        return f"({'*'.join([self._text(base)] * int(exponent))})"


def _outermost(text: str) -> str:
    """Without parentheses around the whole of it."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0 and place < len(text) - 1:
            return text
    return text[1:-1] if text.startswith("(") else text
