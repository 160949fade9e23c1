"""The table from operator to rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from strop.passes.prune.axes import Axes, Call

Rule = Callable[[Call], list[Axes]]
"""Gives the axes of each result of a call, and ties them to those of what it reads."""
RULES: dict[Any, Rule] = {}


def rule(*targets: Any) -> Callable[[Rule], Rule]:
    """Enter the decorated function for these operators."""

    def enter(made: Rule) -> Rule:
        enter_all(targets, made)
        return made

    return enter


def enter_all(targets: Iterable[Any], made: Rule) -> None:
    """Enter one rule for many operators."""
    RULES.update((target, made) for target in targets)
