"""Where a tensor is true: what indexing by masks and ``nonzero`` are made of."""

from __future__ import annotations

from typing import Any

from strop.compiler.lower.onnx.emitter import Emitter


def true_positions(on: Emitter, mask: Any, rank: int) -> tuple[Any, ...]:
    """Positions along each axis of the true elements of a mask, int64 [count] each."""
    found = on.op("NonZero", mask)
    return tuple(on.op("Gather", found, on.constant(axis), axis=0) for axis in range(rank))
