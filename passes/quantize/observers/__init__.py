"""Observers: what range of values to keep, from what a place of the program takes on data."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from strop.passes.quantize.observers.entropy import Entropy
from strop.passes.quantize.observers.extremes import MinMax
from strop.passes.quantize.observers.moving_average import MovingAverage
from strop.passes.quantize.observers.observer import Observer, Range
from strop.passes.quantize.observers.percentile import Percentile
from strop.passes.quantize.observers.squared_error import SquaredError

ObserverName = Literal["min-max", "moving-average", "percentile", "mse", "entropy"]


def observers(name: ObserverName, percentile: float) -> Callable[[], Observer]:
    """What makes an observer, one for each place.

    Args:
        name: of the kind.
        percentile: the share of values that ``percentile`` keeps, in percent.
    """
    makers: dict[str, Callable[[], Observer]] = {
        "min-max": MinMax,
        "moving-average": MovingAverage,
        "percentile": partial(Percentile, percentile),
        "mse": SquaredError,
        "entropy": Entropy,
    }
    return makers[name]


__all__ = ["Observer", "ObserverName", "Range", "observers"]
