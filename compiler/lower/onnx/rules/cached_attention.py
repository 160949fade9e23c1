"""Attention over a cache.

``GroupQueryAttention`` writes new keys and values into the cache in place, where a caller binds
past and present to one buffer; how full it is, it is told. What it does not take, ``Attention`` of
the standard computes.
"""

from __future__ import annotations

from typing import Any

import torch

from strop.compiler.ir.nodes import dtype_of
from strop.compiler.lower.onnx.attention_call import joined, split
from strop.compiler.lower.onnx.attention_inputs import full_mask, scaled, sized
from strop.compiler.lower.onnx.branches import either
from strop.compiler.lower.onnx.cached_call import (
    CachedCall,
    continues_batches,
    fits,
    fits_turned,
    seen,
)
from strop.compiler.lower.onnx.emitter import Emitter
from strop.compiler.lower.onnx.grouped_query import Given, given, grouped_query
from strop.compiler.lower.onnx.sizes import END
from strop.compiler.lower.onnx.table import lowers

strop = torch.ops.strop


@lowers(strop.cached_attention.default)
def cached_attention(on: Emitter, *arguments: Any) -> Any:
    call = CachedCall(*arguments)
    shown = seen(on, call)
    caches = [str(call.past_k.target), str(call.past_v.target)]
    if isinstance(shown, str):
        on.copied_caches |= dict.fromkeys(caches, shown)
        return _exact(on, call, on.value(call.past_k), on.value(call.past_v))
    on.shared_caches.update(caches)
    if not continues_batches(on, call):
        return grouped_query(on, call, given(on, call, turns=False), shown.window)
    read = given(on, call, turns=True)
    if read.turned is None:
        condition = on.once(("fits", str(call.sizes)), lambda: fits(on, call))
    else:
        key = ("fits turned", shown.places, str(call.sizes))
        condition = on.once(key, lambda: fits_turned(on, call, shown.places))
    return either(
        on,
        condition,
        lambda: grouped_query(on, call, read, shown.window),
        lambda: _in_buffer(on, call, read),
    )


def _in_buffer(on: Emitter, call: CachedCall, read: Given) -> tuple[Any, ...]:
    """The same by another operator, with caches that are as long as they were or longer.

    What the buffers hold behind the last place stays as it is.
    """
    _, seq, total = (on.size(size) for size in call.sizes)
    past, axis = on.op("Sub", total, seq), on.constant([2])
    buffers = [on.value(call.past_k), on.value(call.past_v)]
    filled = [on.op("Slice", b, on.constant([0]), past, axis) for b in buffers]
    behind = [on.op("Slice", b, total, on.constant([END]), axis) for b in buffers]
    with on.anew([call.q, call.k, call.v], read.known(on)):
        out, *longer = _exact(on, call, *filled)
    whole = [on.op("Concat", a, b, axis=2) for a, b in zip(longer, behind)]
    return out, *whole


def _exact(on: Emitter, call: CachedCall, past_k: Any, past_v: Any) -> tuple[Any, ...]:
    """``Attention`` of the standard, whose caches hold nothing but what there is."""
    if call.k_scale is not None:
        return _exact_int8(on, call, past_k, past_v)
    q, scale = scaled(on, call.q, call.scale)
    made: tuple[Any, ...] = on.op(
        "Attention",
        sized(q, call.q),
        *(sized(on.value(x), x) for x in (call.k, call.v)),
        full_mask(on, call.mask, call.q, call.sizes[2]),
        past_k,
        past_v,
        scale=scale,
        softcap=call.softcap,
        q_num_heads=call.q_heads if call.packed else None,
        kv_num_heads=call.kv_heads if call.packed else None,
        outputs=3,
    )
    return made


def _exact_int8(on: Emitter, call: CachedCall, past_k: Any, past_v: Any) -> tuple[Any, ...]:
    """The same with caches in int8, which it does not take: it sees what they stand for."""
    q, scale = scaled(on, call.q, call.scale)
    heads = (call.q_heads, call.kv_heads, call.kv_heads)
    new = [q, on.value(call.k), on.value(call.v)]
    if call.packed:
        new = [split(on, x, count, call.size) for x, count in zip(new, heads)]
    scales = on.value(call.k_scale), on.value(call.v_scale)
    longer = [
        on.op("Concat", past, _int8(on, x, of), axis=2)
        for past, x, of in zip((past_k, past_v), new[1:], scales)
    ]
    seen = [on.op("Mul", on.cast(x, dtype_of(call.q)), of) for x, of in zip(longer, scales)]
    mask = full_mask(on, call.mask, call.q, call.sizes[2])
    out = on.op("Attention", new[0], *seen, mask, scale=scale, softcap=call.softcap)
    return joined(on, out, call.q_heads, call.size) if call.packed else out, *longer


def _int8(on: Emitter, x: Any, scale: Any) -> Any:
    steps = on.op("Round", on.op("Div", x, scale))
    ends = (on.constant(end, torch.float32) for end in (-128.0, 127.0))
    return on.cast(on.op("Clip", steps, *ends), torch.int8)
