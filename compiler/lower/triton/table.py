"""The lowering table: which launchers an operator has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch._ops import OpOverload

Emit = Callable[..., Any]
"""``emit(on, *arguments)``: a ``Tracer`` and the arguments in schema order; tensors are fake."""

TABLE: dict[Any, Emit] = {}


def lowers(*targets: OpOverload[Any, Any]) -> Callable[[Emit], Emit]:
    """Enter the decorated function as what lowers the targets."""

    def enter(emit: Emit) -> Emit:
        TABLE.update(dict.fromkeys(targets, emit))
        return emit

    return enter
