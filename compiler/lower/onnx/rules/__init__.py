"""Rows of the lowering table; importing this package enters them all."""

from __future__ import annotations

from strop.compiler.lower.onnx.rules import (
    activations,
    arithmetic,
    attention,
    conv,
    creation,
    data_sizes,
    division,
    elementwise,
    experts,
    indexing,
    linear,
    logic,
    norm,
    prims,
    recurrent,
    reduce,
    repeat,
    resize,
    shape,
    spectrum,
)

__all__ = [
    "activations",
    "arithmetic",
    "attention",
    "conv",
    "creation",
    "data_sizes",
    "division",
    "elementwise",
    "experts",
    "indexing",
    "linear",
    "logic",
    "norm",
    "prims",
    "recurrent",
    "reduce",
    "repeat",
    "resize",
    "shape",
    "spectrum",
]
