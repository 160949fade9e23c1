"""Attention and rotary embedding."""

from __future__ import annotations

from typing import Any

import torch

from strop.compiler.ir.nodes import same_size, shape_of
from strop.compiler.lower.onnx.attention_call import AttentionCall
from strop.compiler.lower.onnx.attention_inputs import full_mask, scaled, sized
from strop.compiler.lower.onnx.emitter import Emitter
from strop.compiler.lower.onnx.refusal import NotLowered
from strop.compiler.lower.onnx.table import lowers

aten = torch.ops.aten
strop = torch.ops.strop


@lowers(strop.attention.default, variant="standard")
def attention(
    on: Emitter,
    q: Any,
    k: Any,
    v: Any,
    mask: Any,
    q_heads: int,
    kv_heads: int,
    scale: float,
    causal: bool,
    softcap: float = 0.0,
) -> Any:
    packed = len(shape_of(q)) == 3
    queries, scale = scaled(on, q, scale)
    return on.op(
        "Attention",
        sized(queries, q),
        _whole_batch(on, k, q),
        _whole_batch(on, v, q),
        None if mask is None else full_mask(on, mask, q, shape_of(k)[-2]),
        is_causal=int(causal),
        scale=scale,
        softcap=softcap or None,
        q_num_heads=q_heads if packed else None,
        kv_num_heads=kv_heads if packed else None,
    )


def _whole_batch(on: Emitter, x: Any, q: Any) -> Any:
    """Keys or values for every batch of the queries: the runtime does not broadcast them."""
    batch = shape_of(q)[0]
    if same_size(shape_of(x)[0], batch):
        return sized(on.value(x), x)
    if not same_size(shape_of(x)[0], 1):
        raise NotLowered("attention whose queries are repeated over the batch of the keys")
    wide = on.op("Expand", on.value(x), on.shape([batch, *[1] * (len(shape_of(x)) - 1)]))
    return sized(wide, x, batch)


@lowers(aten.scaled_dot_product_attention.default, variant="standard")
def sdpa(on: Emitter, *arguments: Any) -> Any:
    call = AttentionCall.of_sdpa(on, *arguments)
    return attention(on, call.q, call.k, call.v, call.mask, 0, 0, call.scale, call.causal)


@lowers(strop.rotary.default, variant="standard")
def rotary(on: Emitter, x: Any, cos: Any, sin: Any, heads: int) -> Any:
    return on.op(
        "RotaryEmbedding",
        on.value(x),
        _cache(on, cos, x),
        _cache(on, sin, x),
        num_heads=heads if len(shape_of(x)) == 3 else None,
        rotary_embedding_dim=_partial(x, cos, heads),
    )


def _partial(x: Any, cos: Any, heads: int) -> int | None:
    """The attribute for a rotation of part of the head, None for all of it."""
    head = int(shape_of(x)[-1]) // (heads if len(shape_of(x)) == 3 else 1)
    rotated = 2 * int(shape_of(cos)[-1])
    return None if rotated == head else rotated


def _cache(on: Emitter, table: Any, x: Any) -> Any:
    """[batch, seq, half] whole: the runtime does not broadcast it."""
    batch = shape_of(x)[0]
    if same_size(shape_of(table)[0], batch):
        return on.value(table)
    return on.once(
        ("cache", table),
        lambda: on.op("Expand", on.value(table), on.shape([batch, 1, 1])),
    )


@lowers(strop.rotary.default, variant="composed")
def rotary_composed(on: Emitter, x: Any, cos: Any, sin: Any, heads: int) -> Any:
    """Split, multiply, join: four elementwise nodes and two copies."""
    packed = len(shape_of(x)) == 3
    value, half = on.value(x), int(shape_of(cos)[-1])
    size = int(shape_of(x)[-1]) // (heads if packed else 1)
    if packed:
        value = on.op("Reshape", value, on.constant([0, 0, heads, size]))
    axis = on.constant([2 if packed else 1])
    c, s = (on.op("Unsqueeze", on.value(t), axis) for t in (cos, sin))
    lengths = [half, half] + ([size - 2 * half] if size > 2 * half else [])
    a, b, *rest = on.op("Split", value, on.constant(lengths), axis=-1, outputs=len(lengths))
    first = on.op("Sub", on.op("Mul", a, c), on.op("Mul", b, s))
    second = on.op("Add", on.op("Mul", b, c), on.op("Mul", a, s))
    result = on.op("Concat", first, second, *rest, axis=-1)
    return on.op("Reshape", result, on.constant([0, 0, heads * size])) if packed else result
