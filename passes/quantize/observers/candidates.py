"""The ranges among which a search looks for the best one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from strop.passes.quantize.observers.observer import Range

_SHARES = tuple(i / 100 for i in range(100, 9, -1))


def best_range(low: float, high: float, cost: Callable[[Range], float]) -> Range:
    """The range of least cost: both ends moved towards 0 together, then each by itself.

    Args:
        low: the least value seen.
        high: the largest.
        cost: of a range; of equal ones the widest is taken.
    """
    best = min(((low * share, high * share) for share in _SHARES), key=cost)
    best = min(((low * share, best[1]) for share in _SHARES), key=cost)
    return min(((best[0], high * share) for share in _SHARES), key=cost)


def steps_of(values: Tensor, scale: Tensor, zero_point: Tensor, low: int, high: int) -> Tensor:
    """The whole numbers that values are rounded to."""
    return (torch.round(values / scale) + zero_point).clamp(low, high)
