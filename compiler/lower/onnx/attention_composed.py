"""Attention operator by operator: scores and their softmax in float32, products in any dtype.

For masks that fused operators have no place for: numbers that float16 does not hold, and -inf.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.fx.node import Node

from strop.compiler.ir.nodes import dtype_of, shape_of
from strop.compiler.lower.onnx.attention_call import AttentionCall, joined, split
from strop.compiler.lower.onnx.emitter import Emitter


def emit_composed(on: Emitter, call: AttentionCall) -> Any:
    """Emit a call; a row of scores that is -inf throughout gives 0, as in torch."""
    call.require_batch()
    dtype = dtype_of(call.q)
    queries, keys, values = (_by_heads(on, call, one) for one in (call.q, call.k, call.v))
    scaled = on.op("Mul", queries, on.constant(call.scale, dtype))
    scores = on.op("MatMul", scaled, on.op("Transpose", keys, perm=[0, 1, 3, 2]))
    scores = scores if dtype == torch.float32 else on.cast(scores, torch.float32)
    for step in (_bounded, _masked, _causal):
        scores = step(on, call, scores)
    weights = _softmax(on, scores, may_be_hidden=call.mask is not None)
    weights = weights if dtype == torch.float32 else on.cast(weights, dtype)
    result = on.op("MatMul", weights, values)
    return joined(on, result, call.heads, call.size(call.v)) if call.packed else result


def _by_heads(on: Emitter, call: AttentionCall, of: Node) -> Any:
    """[batch, heads, rows, size], keys and values once for each head of queries."""
    heads, value = call.heads if of is call.q else call.kv_heads, on.value(of)
    value = split(on, value, heads, call.size(of)) if call.packed else value
    if heads == call.heads:
        return value
    batch, rows, size = shape_of(of)[0], shape_of(of)[-2], call.size(of)
    shared = on.op("Unsqueeze", value, on.constant([2]))
    wide = on.shape([batch, heads, call.heads // heads, rows, size])
    repeated = on.op("Expand", shared, wide)
    return on.op("Reshape", repeated, on.shape([batch, call.heads, rows, size]))


def _bounded(on: Emitter, call: AttentionCall, scores: Any) -> Any:
    if not call.softcap:
        return scores
    cap = on.constant(call.softcap, torch.float32)
    return on.op("Mul", on.op("Tanh", on.op("Div", scores, cap)), cap)


def _masked(on: Emitter, call: AttentionCall, scores: Any) -> Any:
    if call.mask is None:
        return scores
    if call.has_bool_mask:
        lowest = on.constant(-math.inf, torch.float32)
        return on.op("Where", on.value(call.mask), scores, lowest)
    return on.op("Add", scores, on.operand(call.mask, torch.float32))


def _causal(on: Emitter, call: AttentionCall, scores: Any) -> Any:
    if not call.causal:
        return scores
    sizes = on.shape([call.queries, call.keys])

    def later() -> Any:
        """-inf where the key comes after the query, 0 elsewhere."""
        lowest = on.op("Expand", on.constant(-math.inf, torch.float32), sizes)
        return on.op("Trilu", lowest, on.constant(1), upper=1)

    key = ("later keys", str((call.queries, call.keys)))
    return on.op("Add", scores, on.once(key, later))


def _softmax(on: Emitter, scores: Any, may_be_hidden: bool) -> Any:
    weights = on.op("Softmax", scores, axis=-1)
    if not may_be_hidden:
        return weights
    highest = on.op("ReduceMax", scores, on.constant([-1]), keepdims=1)
    hidden = on.op("Equal", highest, on.constant(-math.inf, torch.float32))
    return on.op("Where", hidden, on.constant(0.0, torch.float32), weights)
