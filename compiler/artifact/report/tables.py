"""What the page shows of the passes, computed from the manifest and the build record."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Span:
    """A piece of a timeline; both ends in percent of the whole."""

    start: float
    width: float


@dataclass(frozen=True)
class ErrorScale:
    """A logarithmic scale for errors, from one power of ten to another."""

    low: int
    high: int

    @staticmethod
    def of(values: Sequence[float | None]) -> ErrorScale:
        """The powers of ten that hold every error that is a number above zero."""
        seen = [math.log10(v) for v in values if v]
        if not seen:
            return ErrorScale(-9, 0)
        low = math.floor(min(seen))
        # A bar at the low end would have no length.
        return ErrorScale(low - 1, max(math.ceil(max(seen)), low + 1))

    def percent(self, value: float | None) -> float:
        """How far along the scale an error lies; None, NaN or Inf, lies at its end."""
        if value is None:
            return 100.0
        if value == 0:
            return 0.0
        return round(100 * (math.log10(value) - self.low) / (self.high - self.low), 1)


@dataclass(frozen=True)
class Errors:
    """The passes whose error was measured.

    Attributes:
        worst: the pass that moved the outputs most; None if none moved them.
        share: its part of the steps' errors, from 0 to 1.
    """

    steps: Sequence[Values]
    scale: ErrorScale
    worst: str | None
    share: float


@dataclass(frozen=True)
class MissRow:
    """Near misses that differ in the names of nodes alone.

    Attributes:
        roots: the names of the values where, one for each.
    """

    reason: str
    lines: Sequence[str]
    roots: Sequence[str]


@dataclass(frozen=True)
class MissGroup:
    """The near misses of one rule in one pass."""

    step: str
    rule: str
    rows: Sequence[MissRow]

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(len(row.roots) for row in self.rows)


def timeline(seconds: Mapping[str, float]) -> dict[str, Span]:
    """Where each step lies in the time that all of them took."""
    total = sum(seconds.values()) or 1.0
    spans, start = {}, 0.0
    for name, took in seconds.items():
        spans[name] = Span(round(100 * start / total, 2), round(100 * took / total, 2))
        start += took
    return spans


def pass_errors(steps: Sequence[Values]) -> Errors:
    """The errors of the passes, and which pass stands out."""
    measured = [s for s in steps if s["previous"] is not None]
    moved = {s["name"]: _amount(s["previous"]) for s in measured}
    worst = max(moved, key=lambda name: moved[name], default=None)
    if worst is None or moved[worst] == 0:
        worst = None
    total = sum(moved.values())
    share = 0.0 if worst is None else 1.0 if math.isinf(total) else moved[worst] / total
    both = [s[key]["max_abs"] for s in measured for key in ("previous", "original")]
    return Errors(measured, ErrorScale.of(both), worst, share)


def _amount(drift: Values) -> float:
    """The error as a number: what is not finite is the largest of all."""
    return math.inf if drift["max_abs"] is None else float(drift["max_abs"])


def near_misses(steps: Sequence[Values]) -> list[MissGroup]:
    """Near misses by pass and rule; what repeats from layer to layer is one row."""
    groups = []
    for step in steps:
        ordered = sorted(step["misses"], key=lambda miss: miss["rule"])
        for rule, misses in groupby(ordered, key=lambda miss: miss["rule"]):
            groups.append(MissGroup(step["name"], rule, _miss_rows(list(misses))))
    return groups


def _miss_rows(misses: Sequence[Values]) -> list[MissRow]:
    alike: dict[Any, list[Values]] = {}
    for miss in misses:
        key = (miss["kind"], tuple(miss["lines"]))
        alike.setdefault(key, []).append(miss)
    return [
        MissRow(same[0]["reason"], same[0]["lines"], [miss["root_name"] for miss in same])
        for same in alike.values()
    ]
