"""The ``strop::`` operators: schema and reference, nothing of any target.

Each reference is one plain torch function registered for ``CompositeImplicitAutograd``: eager
meaning, fake shapes and gradients all come from it, and the op stays a single node in a graph.
Importing this package registers them all.
"""

from __future__ import annotations

from strop.compiler.ir.dialect import (
    attention,
    cache,
    cached_attention,
    conv,
    embedding,
    experts,
    fp8,
    kernels,
    linear,
    norm,
    quantize,
    ragged,
    rotary,
    weight_only,
)
from strop.compiler.ir.dialect.registry import stored_bits

__all__ = [
    "attention",
    "cache",
    "cached_attention",
    "conv",
    "embedding",
    "experts",
    "fp8",
    "kernels",
    "linear",
    "norm",
    "quantize",
    "ragged",
    "rotary",
    "stored_bits",
    "weight_only",
]
