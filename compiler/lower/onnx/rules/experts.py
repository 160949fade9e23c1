"""Mixtures of experts: each expert's matrix is multiplied with its own rows only."""

from __future__ import annotations

from typing import Any

import torch

from strop.compiler.ir.nodes import dtype_of, shape_of
from strop.compiler.lower.onnx.emitter import Emitter
from strop.compiler.lower.onnx.table import lowers


@lowers(torch.ops.strop.grouped_matmul.default)
def grouped_matmul(on: Emitter, x: Any, weight: Any, offs: Any) -> Any:
    count, _, width = (int(s) for s in shape_of(weight))
    rows, axis = on.value(x), on.constant([0])
    ends = on.op("Split", on.operand(offs, torch.int64), num_outputs=count, outputs=count)
    ends = ends if isinstance(ends, tuple) else (ends,)
    parts = []
    for number, (start, end) in enumerate(zip((axis, *ends), ends)):
        matrix = on.derived([weight], lambda w, n=number: w[n])
        parts.append(on.op("MatMul", on.op("Slice", rows, start, end, axis), matrix))
    left = on.op("Sub", on.op("Shape", rows, start=0, end=1), ends[-1])
    nothing = on.op("Concat", left, on.constant([width]), axis=0)
    zero = on.constant(0, dtype_of(x))
    return on.op("Concat", *parts, on.op("Expand", zero, nothing), axis=0)
