"""Padding, by a number or by what lies at the edges."""

from __future__ import annotations

from typing import Any

import torch

from strop.compiler.ir.nodes import shape_of, static_int
from strop.compiler.lower.onnx.emitter import Emitter
from strop.compiler.lower.onnx.sizes import END
from strop.compiler.lower.onnx.table import lowers

aten = torch.ops.aten


@lowers(aten.constant_pad_nd.default)
def constant_pad(on: Emitter, x: Any, pad: list[Any], value: Any) -> Any:
    return pad_mode(on, x, pad, "constant", value)


@lowers(aten.pad.default)
def pad_mode(on: Emitter, x: Any, pad: list[Any], mode: str, value: Any) -> Any:
    rank, count = len(shape_of(x)), len(pad) // 2
    if all(static_int(p) == 0 for p in pad):
        return on.value(x)
    axes, every = [rank - 1 - i for i in range(count)], on.constant(list(range(rank)))
    if mode == "constant":
        fill = on.operand(value or 0, on.node.meta["val"].dtype)
        # ONNX Runtime fuses a Pad that names no axes into MaxPool, whatever its value.
        return on.op("Pad", on.value(x), _amounts(on, rank, pad), fill, every, mode=mode)
    added, taken = _signs(pad)
    if mode == "circular":
        return _wrapped(on, _cropped(on, on.value(x), axes, taken), axes, added)
    how = {"reflect": "reflect", "replicate": "edge"}[mode]
    wide = on.op("Pad", on.value(x), _amounts(on, rank, added), None, every, mode=how)
    return _cropped(on, wide, axes, taken)


def _amounts(on: Emitter, rank: int, pad: list[Any]) -> Any:
    """What Pad adds before every axis, then after it, from torch's pairs for the last axes first.

    Every axis, in order: ONNX Runtime forgets other names where it moves a Transpose past Pad.
    """
    missing = [0] * (rank - len(pad) // 2)
    return on.shape([*missing, *pad[-2::-2], *missing, *pad[::-2]])


def _signs(pad: list[Any]) -> tuple[list[Any], list[int]]:
    """The amounts that padding adds, and those that it removes where it is negative."""
    fixed = [static_int(p) for p in pad]
    added = [p if n is None else max(n, 0) for p, n in zip(pad, fixed)]
    return added, [max(-(n or 0), 0) for n in fixed]


def _cropped(on: Emitter, value: Any, axes: list[int], taken: list[int]) -> Any:
    """A value without some elements at both ends of axes."""
    if not any(taken):
        return value
    starts = on.constant(taken[0::2])
    ends = on.constant([-n if n else END for n in taken[1::2]])
    return on.op("Slice", value, starts, ends, on.constant(axes))


def _wrapped(on: Emitter, value: Any, axes: list[int], pad: list[Any]) -> Any:
    """Circular padding: the end before the start, and the start behind the end."""
    for i, axis in enumerate(axes):
        before, after = pad[2 * i : 2 * i + 2]
        at, zero = on.constant([axis]), on.constant([0])
        last = on.op("Slice", value, on.op("Neg", on.size(before)), on.constant([END]), at)
        first = on.op("Slice", value, zero, on.size(after), at)
        parts = [value]
        parts = [last, *parts] if static_int(before) != 0 else parts
        parts = [*parts, first] if static_int(after) != 0 else parts
        value = on.op("Concat", *parts, axis=axis) if len(parts) > 1 else value
    return value
