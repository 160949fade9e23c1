"""Inputs of ONNX's ``Attention`` as the runtime wants them: with known sizes, and masks whole."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch.fx.node import Node

from strop.compiler.ir.ancestry import any_float_behind
from strop.compiler.ir.nodes import dtype_of, same_size, shape_of
from strop.compiler.lower.onnx.dtypes import DTYPES
from strop.compiler.lower.onnx.emitter import Emitter


def sized(value: Any, node: Node, batch: Any = None) -> Any:
    """Declare a value's fixed sizes: without them the runtime infers wrong ones after it."""
    if isinstance(value, ir.Value) and value.shape is None:
        value.type = ir.TensorType(DTYPES[dtype_of(node)])
        sizes = [shape_of(node)[0] if batch is None else batch, *shape_of(node)[1:]]
        value.shape = ir.Shape([s if isinstance(s, int) else None for s in sizes])
    return value


def scaled(on: Emitter, queries: Any, scale: float) -> tuple[Any, float]:
    """Queries and the scale of their scores, above 0: ONNX Runtime takes the root of it."""
    value = on.value(queries)
    if scale > 0:
        return value, float(scale)
    return on.op("Mul", value, on.constant(scale, dtype_of(queries))), 1.0


def full_mask(on: Emitter, mask: Any, q: Any, keys: int | torch.SymInt) -> Any:
    """The mask as an additive float tensor; ONNX Runtime wants its last two axes whole."""
    sizes = str((shape_of(q)[-2], keys))
    return on.once(("mask", mask, sizes), lambda: _make_mask(on, mask, q, keys))


def _make_mask(on: Emitter, mask: Any, q: Any, keys: int | torch.SymInt) -> Any:
    value = on.value(mask)
    dtype = dtype_of(q)
    if dtype_of(mask) == torch.bool:
        # A finite floor: rows that hide everything stay finite, so no NaN has to be repaired.
        # ONNX Runtime gives 0 for a row of this very number, as torch does for a bool mask.
        floor = np.array(torch.finfo(dtype).min)
        value = on.op("Where", value, on.constant(0.0, dtype), on.constant(floor, dtype))
    elif _may_hold_lowest(mask):
        # The runtime would give 0 for such a row; in torch, whose mask is added, it is a mean.
        lowest = on.constant(np.array(torch.finfo(dtype).min), dtype)
        low = on.constant(np.array(torch.finfo(dtype).min / 4), dtype)
        value = on.op("Where", on.op("Equal", value, lowest), low, value)
    queries, shape = shape_of(q)[-2], shape_of(mask)
    rows_whole = len(shape) > 1 and same_size(shape[-2], queries)
    if rows_whole and same_size(shape[-1], keys):
        return value
    rank = max(len(shape), 2)
    return on.op("Expand", value, on.shape([1] * (rank - 2) + [queries, keys]))


def _may_hold_lowest(mask: Node) -> bool:
    """Whether the lowest finite float may be among what a float mask is made of."""
    lowest = torch.finfo(dtype_of(mask)).min

    def may(node: Node) -> bool:
        if node.op in ("placeholder", "get_attr"):
            return True
        literals = [a for a in (*node.args, *node.kwargs.values()) if isinstance(a, float)]
        return any(abs(a) >= -lowest for a in literals if math.isfinite(a))

    return any_float_behind(mask, may)
