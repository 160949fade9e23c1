"""The rows of the lowering table, one family a file; importing this fills it."""

from __future__ import annotations

from strop.compiler.lower.triton.rules import (
    attention,
    cached_attention,
    embedding,
    fp8,
    gated,
    linear,
    norm,
    packed,
    quantize,
    rotary,
    softmax,
)

__all__ = [
    "attention",
    "cached_attention",
    "embedding",
    "fp8",
    "gated",
    "linear",
    "norm",
    "packed",
    "quantize",
    "rotary",
    "softmax",
]
