"""What a decoder computes from its mask, [batch, total]: positions, masks, last tokens."""

from __future__ import annotations

from typing import Any

import torch

from strop.compiler.ir.nodes import shape_of
from strop.compiler.lower.onnx.emitter import Emitter, Size
from strop.compiler.lower.onnx.sizes import END
from strop.compiler.lower.onnx.table import lowers

strop = torch.ops.strop


@lowers(strop.cache_positions.default)
def cache_positions(on: Emitter, mask: Any, seq: Size) -> Any:
    real = on.cast(_real(on, mask), torch.int64)
    counted = on.op("Sub", on.op("CumSum", real, on.constant(1)), on.constant(1))
    return _new(on, on.op("Max", counted, on.constant(0)), mask, seq, axis=1)


@lowers(strop.cache_mask.default)
def cache_mask(on: Emitter, mask: Any, seq: Size, window: int | None) -> Any:
    total = on.op("Squeeze", on.size(shape_of(mask)[1]))
    places = on.op("Range", on.constant(0), total, on.constant(1))
    own = on.op("Unsqueeze", _new(on, places, mask, seq, axis=0), on.constant([1]))
    seen = on.op("LessOrEqual", places, own)
    if window is not None:
        first = on.op("Sub", own, on.constant(window))
        seen = on.op("And", seen, on.op("Greater", places, first))
    real = _real(on, mask)
    padding = on.op("Unsqueeze", on.op("Not", _new(on, real, mask, seq, axis=1)), on.constant([2]))
    shown = on.op("Or", on.op("Unsqueeze", real, on.constant([1])), padding)
    return on.op("Unsqueeze", on.op("And", seen, shown), on.constant([1]))


@lowers(strop.last_token.default)
def last_token(on: Emitter, x: Any, mask: Any) -> Any:
    seq = shape_of(x)[1]
    count = on.op("Squeeze", on.size(seq))
    places = on.op("Range", on.constant(0), count, on.constant(1))
    real = _new(on, _real(on, mask), mask, seq, axis=1)
    place = on.op("Where", real, places, on.constant(-1))
    last = on.op("ReduceMax", place, on.constant([1]), keepdims=1)
    end = on.op("Sub", count, on.constant(1))
    last = on.op("Where", on.op("Less", last, on.constant(0)), end, last)
    chosen = on.op("Unsqueeze", last, on.constant([2]))
    return on.op("GatherND", on.value(x), chosen, batch_dims=1)


def _real(on: Emitter, mask: Any) -> Any:
    """Whether each place holds a real token: bool [batch, total]."""
    return on.once(("real", mask), lambda: on.cast(on.value(mask), torch.bool))


def _new(on: Emitter, value: Any, mask: Any, seq: Size, axis: int) -> Any:
    """The places of a value that are new, the last ones."""
    first = on.op("Sub", on.size(shape_of(mask)[1]), on.size(seq))
    return on.op("Slice", value, first, on.constant([END]), on.constant([axis]))
