"""The table of formulas: operators in terms of simpler ones, where torch has no decomposition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch._ops import OpOverload

Formula = Callable[..., Any]
"""Takes the operator's arguments, gives its result; calls only operators that are lowered."""

F = TypeVar("F", bound=Formula)

FORMULAS: dict[Any, Formula] = {}


def formula(*targets: OpOverload[Any, Any]) -> Callable[[F], F]:
    """Enter the decorated function as the formula of the targets."""

    def enter(function: F) -> F:
        for target in targets:
            FORMULAS[target] = function
        return function

    return enter
