"""One rule for each operator: the axes of its results, and what it ties."""

from __future__ import annotations

from typing import Any

from strop.compiler.ir.pointwise import is_pointwise
from strop.passes.prune.axes import Call
from strop.passes.prune.rules import (  # noqa: F401  (each fills the table)
    attention,
    convolutions,
    creation,
    indexing,
    joins,
    norms,
    products,
    reductions,
    views,
)
from strop.passes.prune.rules.pointwise import pointwise
from strop.passes.prune.rules.registry import RULES, Rule


def rule_of(target: Any) -> Rule:
    """The rule of an operator; that of an unknown one freezes all that it touches."""
    if target in RULES:
        return RULES[target]
    return pointwise if is_pointwise(target) else Call.unknown
