"""Rows of the lowering table; importing this package enters them all."""

from __future__ import annotations

from strop.compiler.lower.onnx.rules import (
    attention,
    conv,
    creation,
    data_sizes,
    elementwise,
    experts,
    indexing,
    linear,
    norm,
    recurrent,
    reduce,
    shape,
)

__all__ = [
    "attention",
    "conv",
    "creation",
    "data_sizes",
    "elementwise",
    "experts",
    "indexing",
    "linear",
    "norm",
    "recurrent",
    "reduce",
    "shape",
]
