"""Attention of sequences of several lengths: those of about one length together.

The runtime has attention for one length only, and its time grows with the square of it. So the
sequences are sorted by length and divided into groups; each is spread out to its own longest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch

from strop.compiler.ir.nodes import dtype_of, shape_of
from strop.compiler.lower.onnx.dtypes import DTYPES
from strop.compiler.lower.onnx.emitter import Emitter
from strop.compiler.lower.onnx.refusal import NotLowered
from strop.compiler.lower.onnx.table import lowers

strop = torch.ops.strop

# More groups waste less on unequal lengths, and cost more nodes.
_GROUPS = 6


@dataclass(frozen=True)
class _Sequences:
    """The sequences of a batch as int64 values of the file.

    Attributes:
        count: how many there are, [1].
        lengths: of each, [batch].
        starts: its first row, [batch].
        falling: the lengths, the longest first, [batch].
        order: whose length each of these is, [batch].
    """

    count: Any
    lengths: Any
    starts: Any
    falling: Any
    order: Any


@dataclass(frozen=True)
class _Group:
    """Sequences that are spread out to one length.

    Attributes:
        rows: of each sequence at each place, int64 [sequences, length]; behind its end its last.
        inside: whether a place is no later than its end, bool [sequences, length].
        first: of each sequence, the number of its first place among those of all groups, int64.
    """

    rows: Any
    inside: Any
    first: Any


@dataclass(frozen=True)
class _Grouping:
    """All groups, and for each row its number among the places of all groups, int64 [rows]."""

    groups: list[_Group]
    back: Any


@lowers(strop.ragged_attention.default)
def ragged_attention(
    on: Emitter,
    q: Any,
    k: Any,
    v: Any,
    mask: Any,
    kept: Any,
    rows: Any,
    places: Any,
    q_heads: int,
    kv_heads: int,
    scale: float,
    causal: bool,
) -> Any:
    if scale <= 0:  # ONNX Runtime takes the root of it.
        raise NotLowered("attention whose scale is not above zero")
    grouping = on.once(("grouping", kept, rows), lambda: _grouping(on, kept, rows))
    found = []
    for number, group in enumerate(grouping.groups):
        seen = on.once(("seen", mask, kept, number), lambda g=group: _seen(on, mask, g))  # type: ignore[misc]
        out = on.op(
            "Attention",
            *(_spread(on, x, group) for x in (q, k, v)),
            seen,
            is_causal=int(causal),
            scale=float(scale),
            q_num_heads=q_heads,
            kv_num_heads=kv_heads,
        )
        found.append(on.op("Reshape", out, on.constant([-1, int(shape_of(q)[-1])])))
    joined = on.op("Concat", *found, axis=0)
    return on.op("Unsqueeze", on.op("Gather", joined, grouping.back, axis=0), on.constant([0]))


def _spread(on: Emitter, x: Any, group: _Group) -> Any:
    """The rows of a group, [sequences, length, channels]."""
    value = on.op("Squeeze", on.op("Gather", on.value(x), group.rows, axis=1), on.constant([0]))
    # Without the fixed size the runtime infers a wrong one behind it.
    value.type = ir.TensorType(DTYPES[dtype_of(x)])
    value.shape = ir.Shape([None, None, int(shape_of(x)[-1])])
    return value


def _seen(on: Emitter, mask: Any, group: _Group) -> Any:
    """What is added to the scores of a group, float [sequences, 1, length, length]."""
    dtype = torch.float32 if dtype_of(mask) == torch.bool else dtype_of(mask)
    floor = on.constant(torch.finfo(dtype).min, dtype)
    own = on.op("Gather", on.value(mask), group.rows, axis=0)
    if dtype_of(mask) == torch.bool:
        seen = on.op("Where", on.op("And", own, group.inside), on.constant(0.0, dtype), floor)
    else:
        seen = on.op("Where", group.inside, own, floor)
    wide = on.op("Unsqueeze", seen, on.constant([1, 2]))
    length = on.op("Shape", group.rows, start=1, end=2)
    one = on.constant([1])
    return on.op("Expand", wide, on.op("Concat", one, one, length, one, axis=0))


def _grouping(on: Emitter, kept: Any, rows: Any) -> _Grouping:
    own = _sequences(on, kept)
    groups: list[_Group] = []
    place = on.constant([0])
    for number in range(_GROUPS):
        group, place = _group(on, own, number, place)
        groups.append(group)
    firsts = on.op("Concat", *(group.first for group in groups), axis=0)
    first = on.op("ScatterElements", own.starts, own.order, firsts, axis=0)
    sequence = on.op("Div", on.value(rows), on.size(shape_of(kept)[1]))
    moved = on.op("Gather", on.op("Sub", first, own.starts), sequence, axis=0)
    return _Grouping(groups, on.op("Add", moved, _range(on, on.op("Shape", on.value(rows)))))


def _sequences(on: Emitter, kept: Any) -> _Sequences:
    axis = on.constant([1])
    lengths = on.op("ReduceSum", on.operand(kept, torch.int64), axis, keepdims=0)
    count = on.op("Shape", lengths)
    starts = on.op("Sub", on.op("CumSum", lengths, on.constant(0)), lengths)
    falling, order = on.op("TopK", lengths, count, axis=0, outputs=2)
    return _Sequences(count, lengths, starts, falling, order)


def _group(on: Emitter, own: _Sequences, number: int, place: Any) -> tuple[_Group, Any]:
    """One group, and the number of places up to its end.

    A group of no sequence has one place of some sequence, which is read for no row: the runtime
    takes no empty batch.
    """
    low, high = (
        on.op("Div", on.op("Mul", own.count, on.constant([n])), on.constant([_GROUPS]))
        for n in (number, number + 1)
    )
    one, axis = on.constant([1]), on.constant([0])
    some = on.op("Max", high, on.op("Add", low, one))
    longest = on.op("Slice", own.falling, low, high, axis)
    length = on.op("ReduceMax", on.op("Concat", longest, one, axis=0), keepdims=1)
    chosen = on.op("Slice", own.order, low, some, axis)
    last = on.constant([1])
    lengths, starts = (
        on.op("Unsqueeze", on.op("Gather", x, chosen, axis=0), last)
        for x in (own.lengths, own.starts)
    )
    places = _range(on, length)
    rows = on.op("Add", starts, on.op("Min", places, on.op("Sub", lengths, one)))
    inside = on.op("Less", places, lengths)
    members = _range(on, on.op("Sub", high, low))
    first = on.op("Add", place, on.op("Mul", members, length))
    end = on.op("Add", place, on.op("Mul", on.op("Sub", some, low), length))
    return _Group(rows, inside, first), end


def _range(on: Emitter, count: Any) -> Any:
    """0, 1, ... up to a count that is held as [1]."""
    return on.op("Range", on.constant(0), on.op("Squeeze", count), on.constant(1))
