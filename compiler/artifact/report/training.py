"""What the page shows of passes that trained: curves of losses, and metrics before and after."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pydantic

WIDTH, HEIGHT = 600, 160
"""Of a chart, in its own units."""


class _Line(pydantic.BaseModel):
    """One line of a history; it may hold more."""

    update: int
    loss: float | None = None
    validation: float | None = None


class _Facts(pydantic.BaseModel):
    """What is read of the facts of a pass; others may be there."""

    history: list[_Line]
    metrics: dict[str, dict[str, float]] = {}


@dataclass(frozen=True)
class Curve:
    """A loss by updates, as the points of a polyline."""

    name: str
    points: str
    first: float
    last: float


@dataclass(frozen=True)
class Training:
    """What one pass learned: its curves on one scale, and the user's metrics.

    Attributes:
        step: the pass.
        updates: of the weights.
        low: of the scale, which is logarithmic where ``log``.
        high: of the scale.
        metrics: by name, before and after.
    """

    step: str
    updates: int
    curves: Sequence[Curve]
    low: float
    high: float
    log: bool
    metrics: Mapping[str, tuple[float, float]]


def trainings(steps: Sequence[Mapping[str, Any]]) -> list[Training]:
    """The passes that recorded a history of losses; facts of another form are not shown."""
    found = []
    for step in steps:
        try:
            facts = _Facts.model_validate((step["learned"] or {}).get("facts"))
        except pydantic.ValidationError:
            continue  # a pass of the user's own, which records something else
        values = [v for line in facts.history for v in (line.loss, line.validation)]
        if any(v is not None for v in values):
            found.append(_training(step["name"], facts, [v for v in values if v is not None]))
    return found


def _training(name: str, facts: _Facts, values: Sequence[float]) -> Training:
    low, high, log = min(values), max(values), min(values) > 0
    last = max(line.update for line in facts.history) or 1
    height = _scale(low, high, log)
    curves = [
        Curve(kind, " ".join(f"{x / last * WIDTH:.1f},{height(y):.1f}" for x, y in points),
              points[0][1], points[-1][1])
        for kind, points in _points(facts.history).items()
        if points
    ]  # fmt: skip
    before, after = facts.metrics.get("before", {}), facts.metrics.get("after", {})
    metrics = {name: (before[name], after[name]) for name in before if name in after}
    return Training(name, last, curves, low, high, log, metrics)


def _points(history: Sequence[_Line]) -> dict[str, list[tuple[int, float]]]:
    """By the name of a curve, its updates and values."""
    return {
        "training": [(line.update, line.loss) for line in history if line.loss is not None],
        "held out": [
            (line.update, line.validation) for line in history if line.validation is not None
        ],
    }


def _scale(low: float, high: float, log: bool) -> Callable[[float], float]:
    """How far below the top of the chart a value lies."""
    measure: Callable[[float], float] = math.log10 if log else float
    start, length = measure(low), measure(high) - measure(low) or 1.0
    return lambda value: HEIGHT * (1 - (measure(value) - start) / length)
