"""Attention over a cache.

``GroupQueryAttention`` writes new keys and values into the cache in place, where a caller binds
past and present to one buffer; how full it is, it is told. It hides what comes after a token by
itself, so it takes only masks that do so too; padding, windows and biases are added to its scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.fx.node import Node

from strop.compiler.ir.nodes import arguments as arguments_of
from strop.compiler.ir.nodes import dtype_of, shape_of, static_int
from strop.compiler.ir.printer import size_text
from strop.compiler.lower.onnx.attention_call import joined, split
from strop.compiler.lower.onnx.attention_inputs import full_mask, sized
from strop.compiler.lower.onnx.branches import either
from strop.compiler.lower.onnx.causal_masks import cache_mask_in
from strop.compiler.lower.onnx.emitter import MICROSOFT, Emitter
from strop.compiler.lower.onnx.sizes import END
from strop.compiler.lower.onnx.table import lowers

strop = torch.ops.strop

# Kernels of GroupQueryAttention take heads whose size is a multiple of this.
_STEP = 8


@dataclass(frozen=True)
class CachedCall:
    """One call of ``strop::cached_attention``; the attributes are its arguments."""

    q: Node
    k: Node
    v: Node
    past_k: Node
    past_v: Node
    mask: Node
    q_heads: int
    kv_heads: int
    scale: float
    softcap: float

    @property
    def packed(self) -> bool:
        """Whether heads of the new tokens lie side by side in the last axis."""
        return len(shape_of(self.q)) == 3

    @property
    def size(self) -> int | None:
        """Of a head of keys, None where it is dynamic."""
        return static_int(shape_of(self.past_k)[-1])

    @property
    def sizes(self) -> tuple[Any, Any, Any]:
        """How many rows, new tokens and places in all there are."""
        batch, seq = shape_of(self.q)[0], shape_of(self.q)[-2]
        return batch, seq, shape_of(self.mask)[-1]


@lowers(strop.cached_attention.default)
def cached_attention(on: Emitter, *arguments: Any) -> Any:
    call = CachedCall(*arguments)
    hidden = cache_mask_in(call.mask, on.program)
    if hidden is None or not _is_grouped(on, call):
        return _exact(on, call, on.value(call.past_k), on.value(call.past_v))
    on.shared_caches |= {str(call.past_k.target), str(call.past_v.target)}
    window = arguments_of(hidden)["window"]
    _bias(on, call)  # Outside of the branches, which share it.
    if not _continues_batches(on, call):
        return _grouped(on, call, window)
    return either(
        on,
        on.once(("runs grouped", str(call.sizes)), lambda: _runs_grouped(on, call)),
        lambda: _grouped(on, call, window),
        lambda: _in_buffer(on, call),
    )


def _is_grouped(on: Emitter, call: CachedCall) -> bool:
    """Whether ``GroupQueryAttention`` takes a call whose mask hides what comes after a token."""
    return (
        on.target.contrib
        and on.target.fuses(dtype_of(call.q))
        and call.size is not None
        and call.size % _STEP == 0
        and call.size == static_int(shape_of(call.past_v)[-1])
        and len(shape_of(call.mask)) == 4
    )


def _continues_batches(on: Emitter, call: CachedCall) -> bool:
    """Whether several rows may have several new tokens behind a cache."""
    return all(_may_exceed_one(on, size) for size in call.sizes[:2])


def _may_exceed_one(on: Emitter, size: Any) -> bool:
    known = static_int(size)
    if known is not None:
        return known > 1
    name = size_text(size, on.program.symbols)
    most = next((dim.max for dim in on.program.contract.dims if dim.name == name), None)
    return most is None or most > 1


def _runs_grouped(on: Emitter, call: CachedCall) -> Any:
    """Whether the runtime takes these sizes: several new tokens of several rows need no cache."""
    batch, seq, total = (on.size(size) for size in call.sizes)
    one = on.constant([1])
    few = on.op("Or", on.op("Equal", batch, one), on.op("Equal", seq, one))
    return on.op("Or", few, on.op("Equal", seq, total))


def _grouped(on: Emitter, call: CachedCall, window: int | None) -> tuple[Any, ...]:
    q, scale = _scaled(on, call)
    made = on.op(
        "GroupQueryAttention",
        _packed(on, call, q, call.q_heads),
        *(_packed(on, call, on.value(x), call.kv_heads) for x in (call.k, call.v)),
        on.value(call.past_k),
        on.value(call.past_v),
        on.once(("last places", str(call.sizes)), lambda: _last_places(on, call)),
        on.once(("total", str(call.sizes[2])), lambda: _total(on, call)),
        None,
        None,
        None,
        _bias(on, call),
        domain=MICROSOFT,
        num_heads=call.q_heads,
        kv_num_heads=call.kv_heads,
        scale=scale,
        softcap=call.softcap,
        local_window_size=-1 if window is None else window,
        outputs=3,
    )
    out = made[0] if call.packed else split(on, made[0], call.q_heads, int(call.size or 0))
    return out, made[1], made[2]


def _packed(on: Emitter, call: CachedCall, value: Any, heads: int) -> Any:
    return value if call.packed else joined(on, value, heads, int(call.size or 0))


def _scaled(on: Emitter, call: CachedCall) -> tuple[Any, float]:
    """Queries and the scale above 0 of their scores: ONNX Runtime takes the root of it."""
    q = on.value(call.q)
    if call.scale > 0:
        return q, call.scale
    return on.op("Mul", q, on.constant(call.scale, dtype_of(call.q))), 1.0


def _last_places(on: Emitter, call: CachedCall) -> Any:
    """The number of the last place of each row: padding is no end, but hidden by the bias."""
    batch, _, total = call.sizes
    last = on.op("Sub", on.size(total), on.constant([1]))
    return on.op("Expand", on.cast(last, torch.int32), on.shape([batch]))


def _total(on: Emitter, call: CachedCall) -> Any:
    return on.op("Squeeze", on.cast(on.size(call.sizes[2]), torch.int32))


def _bias(on: Emitter, call: CachedCall) -> Any:
    return full_mask(on, call.mask, call.q, call.sizes[2])


def _in_buffer(on: Emitter, call: CachedCall) -> tuple[Any, ...]:
    """The same by another operator, with caches that are as long as they were or longer.

    What the buffers hold behind the last place stays as it is.
    """
    _, seq, total = (on.size(size) for size in call.sizes)
    past, axis = on.op("Sub", total, seq), on.constant([2])
    buffers = [on.value(call.past_k), on.value(call.past_v)]
    filled = [on.op("Slice", b, on.constant([0]), past, axis) for b in buffers]
    behind = [on.op("Slice", b, total, on.constant([END]), axis) for b in buffers]
    out, *longer = _exact(on, call, *filled)
    whole = [on.op("Concat", a, b, axis=2) for a, b in zip(longer, behind)]
    return out, *whole


def _exact(on: Emitter, call: CachedCall, past_k: Any, past_v: Any) -> tuple[Any, ...]:
    """``Attention`` of the standard, whose caches hold nothing but what there is."""
    q, scale = _scaled(on, call)
    made: tuple[Any, ...] = on.op(
        "Attention",
        sized(q, call.q),
        *(sized(on.value(x), x) for x in (call.k, call.v)),
        _bias(on, call),
        past_k,
        past_v,
        scale=scale,
        softcap=call.softcap,
        q_num_heads=call.q_heads if call.packed else None,
        kv_num_heads=call.kv_heads if call.packed else None,
        outputs=3,
    )
    return made
