"""The lowering table: which emitters an operator has, and which one a target takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch._ops import OpOverload

from strop.compiler.lower.choices import Choices

Emit = Callable[..., Any]
"""``emit(on, *arguments)``: an ``Emitter`` and the operator's arguments in schema order."""

TABLE: dict[Any, dict[str, Emit]] = {}


def lowers(*targets: OpOverload[Any, Any], variant: str = "default") -> Callable[[Emit], Emit]:
    """Enter the decorated function as an emitter of the targets, under a variant's name."""

    def enter(emit: Emit) -> Emit:
        for target in targets:
            TABLE.setdefault(target, {})[variant] = emit
        return emit

    return enter


def choose(target: Any, choices: Choices) -> Emit | None:
    """The emitter for an operator, by measurement where there are several."""
    variants = TABLE.get(target)
    if variants is None:
        return None
    if len(variants) == 1:
        return next(iter(variants.values()))
    return variants[choices.variant(target, list(variants))]
