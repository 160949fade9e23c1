"""Attention of sequences of several lengths: those of about one length together.

The runtime has attention for one length only, and its time grows with the square of it. So the
sequences are sorted by length and divided into groups; each is spread out to its own longest.
Where nothing is padded, which shows when the file runs, all are computed together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch

from strop.compiler.ir.nodes import dtype_of, shape_of
from strop.compiler.lower.onnx.branches import either
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
class _Plan:
    """How attention is computed.

    Attributes:
        padded: whether there is padding at all, bool []. Without, there are no groups.
        rows: of each group.
        masks: of each group what is added to its scores, float [sequences, 1, length, length].
        back: for each row its number among the places of all groups, int64 [rows].
        whole: what is added to the scores where nothing is padded, [batch, 1, seq, seq].
    """

    padded: Any
    rows: list[Any]
    masks: list[Any]
    back: Any
    whole: Any


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
    plan = on.once(("ragged", mask, kept, rows), lambda: _plan(on, mask, kept, rows))
    heads = {"q_num_heads": q_heads, "kv_num_heads": kv_heads}
    settings = heads | {"is_causal": int(causal), "scale": float(scale)}
    out = either(
        on,
        plan.padded,
        lambda: [_by_groups(on, (q, k, v), plan, settings)],
        lambda: [_together(on, (q, k, v), kept, plan, settings)],
    )
    # Behind the branches, since a branch would copy what it gives another shape.
    return on.op("Reshape", out, on.constant([1, -1, int(shape_of(q)[-1])]))


def _by_groups(on: Emitter, qkv: Sequence[Any], plan: _Plan, settings: dict[str, Any]) -> Any:
    found = []
    width = on.constant([-1, int(shape_of(qkv[0])[-1])])
    for rows, mask in zip(plan.rows, plan.masks):
        out = on.op("Attention", *(_spread(on, x, rows) for x in qkv), mask, **settings)
        found.append(on.op("Reshape", out, width))
    return on.op("Gather", on.op("Concat", *found, axis=0), plan.back, axis=0)


def _together(
    on: Emitter, qkv: Sequence[Any], kept: Any, plan: _Plan, settings: dict[str, Any]
) -> Any:
    """Every position is a row: the rows are the positions in their order."""
    sizes = on.op("Shape", on.value(kept))

    def whole(x: Any) -> Any:
        channels = on.constant([int(shape_of(x)[-1])])
        return _sized(on.op("Reshape", on.value(x), on.op("Concat", sizes, channels, axis=0)), x)

    return on.op("Attention", *map(whole, qkv), plan.whole, **settings)


def _spread(on: Emitter, x: Any, rows: Any) -> Any:
    """The rows of a group, [sequences, length, channels]."""
    gathered = on.op("Gather", on.value(x), rows, axis=1)
    return _sized(on.op("Squeeze", gathered, on.constant([0])), x)


def _sized(value: Any, x: Any) -> Any:
    """Declare the number of channels: without it the runtime infers a wrong one behind it."""
    value.type = ir.TensorType(DTYPES[dtype_of(x)])
    value.shape = ir.Shape([None, None, int(shape_of(x)[-1])])
    return value


def _plan(on: Emitter, mask: Any, kept: Any, rows: Any) -> _Plan:
    positions = on.op("Size", on.value(kept))
    count = on.op("Size", on.value(rows))
    padded = on.op("Less", count, positions)
    made = either(
        on,
        padded,
        lambda: [*_grouped(on, mask, kept, rows), _nothing(on, mask, 4)],
        lambda: _ungrouped(on, mask, kept),
    )
    return _Plan(padded, list(made[:_GROUPS]), list(made[_GROUPS:-2]), made[-2], made[-1])


def _nothing(on: Emitter, mask: Any, axes: int) -> Any:
    """No number at all, in the dtype of the masks, or without a mask int64."""
    dtype = torch.int64 if mask is None else _mask_dtype(mask)
    return on.op("Expand", on.constant(0, dtype), on.constant([0] * axes))


def _ungrouped(on: Emitter, mask: Any, kept: Any) -> list[Any]:
    """What stands for the groups where there are none, and the mask of all positions."""
    rows = [_nothing(on, None, 2) for _ in range(_GROUPS)]
    masks = [_nothing(on, mask, 4) for _ in range(_GROUPS)]
    all_of_it = on.op("Reshape", on.value(mask), on.op("Shape", on.value(kept)))
    return [*rows, *masks, _nothing(on, None, 1), _added(on, mask, all_of_it)]


def _mask_dtype(mask: Any) -> torch.dtype:
    return torch.float32 if dtype_of(mask) == torch.bool else dtype_of(mask)


def _added(on: Emitter, mask: Any, seen: Any) -> Any:
    """A mask of keys as what is added to scores.

    Args:
        on: emits it.
        mask: of the program, whose dtype counts.
        seen: its values, [sequences, length].

    Returns:
        Float [sequences, 1, length, length]: the runtime wants its last two axes whole.
    """
    dtype = _mask_dtype(mask)
    if dtype_of(mask) == torch.bool:
        floor = on.constant(torch.finfo(dtype).min, dtype)
        seen = on.op("Where", seen, on.constant(0.0, dtype), floor)
    wide = on.op("Unsqueeze", seen, on.constant([1, 2]))
    length = on.op("Shape", seen, start=1, end=2)
    one = on.constant([1])
    return on.op("Expand", wide, on.op("Concat", one, one, length, one, axis=0))


def _seen(on: Emitter, mask: Any, group: _Group) -> Any:
    """The mask of a group; nobody looks at what stands behind the end of a sequence."""
    own = on.op("Gather", on.value(mask), group.rows, axis=0)
    if dtype_of(mask) == torch.bool:
        return _added(on, mask, on.op("And", own, group.inside))
    dtype = dtype_of(mask)
    floor = on.constant(torch.finfo(dtype).min, dtype)
    return _added(on, mask, on.op("Where", group.inside, own, floor))


def _grouped(on: Emitter, mask: Any, kept: Any, rows: Any) -> list[Any]:
    """The rows of each group, their masks, and the number of each row among all places."""
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
    back = on.op("Add", moved, _range(on, on.op("Shape", on.value(rows))))
    return [*(g.rows for g in groups), *(_seen(on, mask, g) for g in groups), back]


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
