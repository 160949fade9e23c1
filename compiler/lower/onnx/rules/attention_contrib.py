"""Attention in ONNX Runtime's own operators, where they compute the same.

Signatures and shapes: docs/ContribOperators.md of ONNX Runtime. Nothing here was run on a GPU.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch.fx.node import Node

from strop.compiler.ir.ancestry import any_float_behind
from strop.compiler.ir.nodes import dtype_of, same_size, shape_of
from strop.compiler.ir.program import Program
from strop.compiler.lower.onnx.attention_call import AttentionCall, joined, split
from strop.compiler.lower.onnx.attention_composed import emit_composed
from strop.compiler.lower.onnx.emitter import MICROSOFT, Emitter
from strop.compiler.lower.onnx.table import lowers

aten = torch.ops.aten
strop = torch.ops.strop
# What hides a key when it is added to a score: scores of either sign may be added to it in float16.
_LOW = {dtype: torch.finfo(dtype).min / 2 for dtype in (torch.float16, torch.float32)}
# Kernels of GroupQueryAttention take heads of these sizes.
_STEP, _LARGEST = 8, 256


@lowers(strop.attention.default, variant="contrib")
def attention_contrib(on: Emitter, *arguments: Any) -> Any:
    return _emit(on, AttentionCall(*arguments))


@lowers(aten.scaled_dot_product_attention.default, variant="contrib")
def sdpa_contrib(on: Emitter, *arguments: Any) -> Any:
    return _emit(on, AttentionCall.of_sdpa(on, *arguments))


def _emit(on: Emitter, call: AttentionCall) -> Any:
    """The fastest operator that computes a call: modelled, not measured."""
    if not _is_fused(on, call):
        return emit_composed(on, call)
    if _is_grouped_query(call):
        return _grouped_query(on, call)
    return emit_composed(on, call) if call.softcap else _multi_head(on, call)


def _is_fused(on: Emitter, call: AttentionCall) -> bool:
    """Whether an operator of the runtime's computes the same as a call."""
    same_batch = all(same_size(shape_of(n)[0], shape_of(call.q)[0]) for n in (call.k, call.v))
    one_size = call.size(call.q) == call.size(call.k)
    # The runtime takes the root of the scale; keys after a query are counted from the last.
    if call.scale <= 0 or not (same_batch and one_size) or (call.causal and not call.square):
        return False
    return call.mask is None or _is_plain_mask(on, call, call.mask)


def _is_plain_mask(on: Emitter, call: AttentionCall, mask: Node) -> bool:
    """Whether a mask is a bias in the dtype of the queries, or says of each key if it is seen."""
    if not call.has_bool_mask:
        infinite = any_float_behind(mask, lambda node: _may_be_infinite(node, on.program))
        return dtype_of(mask) == dtype_of(call.q) and not infinite
    sizes = (1, 1, 1, 1, *shape_of(mask))[-4:]
    # A mask of rows joins the causal one before it is asked which rows see nothing.
    return same_size(sizes[1], 1) and not (call.causal and not same_size(sizes[2], 1))


def _may_be_infinite(node: Node, program: Program) -> bool:
    """Whether a value is the caller's, or has an infinity written into it."""
    if node.op == "placeholder":
        return True
    if (weight := program.weight_of(node)) is not None:
        return bool(weight.isinf().any())
    return any(isinstance(a, float) and math.isinf(a) for a in (*node.args, *node.kwargs.values()))


def _is_grouped_query(call: AttentionCall) -> bool:
    size, dtype = call.size(call.q), dtype_of(call.q)
    return (
        call.packed
        and call.causal
        and call.mask is None
        and call.kv_heads < call.heads
        and dtype == torch.float16
        and size == call.size(call.v)
        and size % _STEP == 0
        and size <= _LARGEST
    )


def _grouped_query(on: Emitter, call: AttentionCall) -> Any:
    """Without a cache: every row has all keys, of which it sees those up to its own."""
    batch = shape_of(call.q)[0]

    def lengths() -> Any:
        last = on.op("Sub", on.size(call.keys), on.constant([1]))
        return on.op("Expand", on.cast(last, torch.int32), on.shape([batch]))

    def total() -> Any:
        return on.op("Squeeze", on.cast(on.size(call.keys), torch.int32))

    key = str((batch, call.keys))
    result = on.op(
        "GroupQueryAttention",
        *(on.value(n) for n in (call.q, call.k, call.v)),
        None,
        None,
        on.once(("last places", key), lengths),
        on.once(("keys in all", key), total),
        domain=MICROSOFT,
        num_heads=call.heads,
        kv_num_heads=call.kv_heads,
        scale=call.scale,
        softcap=call.softcap,
        outputs=3,
    )
    return result[0]


def _multi_head(on: Emitter, call: AttentionCall) -> Any:
    made = on.op(
        "MultiHeadAttention",
        *(_packed(on, call, n) for n in (call.q, call.k, call.v)),
        None,
        None,
        None if call.mask is None else _bias(on, call, call.mask),
        domain=MICROSOFT,
        num_heads=call.heads,
        scale=call.scale,
        unidirectional=int(call.causal),
    )
    if call.mask is not None and call.has_bool_mask:
        # Where nothing is seen torch gives 0, and the runtime a mean.
        made = on.op("Where", _seen(on, call, call.mask), made, on.constant(0.0, dtype_of(call.q)))
    return made if call.packed else split(on, made, call.heads, call.size(call.v))


def _packed(on: Emitter, call: AttentionCall, of: Node) -> Any:
    """[batch, rows, heads*size], keys and values once for each head of queries."""
    heads, size, value = call.heads if of is call.q else call.kv_heads, call.size(of), on.value(of)
    if heads == call.heads:
        return value if call.packed else joined(on, value, heads, size)
    batch, rows = shape_of(of)[0], shape_of(of)[-2]
    value = value if call.packed else joined(on, value, heads, size)
    apart = on.op("Reshape", value, on.constant([0, 0, heads, 1, size]))
    wide = on.shape([batch, rows, heads, call.heads // heads, size])
    return on.op("Reshape", on.op("Expand", apart, wide), on.constant([0, 0, call.heads * size]))


def _bias(on: Emitter, call: AttentionCall, mask: Node) -> Any:
    """What is added to scores, [batch or 1, heads or 1, queries, keys]."""
    sizes = str((call.queries, call.keys))
    return on.once(("attention bias", mask, sizes), lambda: _make_bias(on, call, mask))


def _make_bias(on: Emitter, call: AttentionCall, mask: Node) -> Any:
    value, dtype = on.value(mask), dtype_of(call.q)
    if call.has_bool_mask:
        low = on.constant(np.array(_LOW[dtype]), dtype)
        value = on.op("Where", value, on.constant(0.0, dtype), low)
    shape = shape_of(mask)
    rows_whole = len(shape) == 4 and same_size(shape[-2], call.queries)
    if rows_whole and same_size(shape[-1], call.keys):
        return value
    return on.op("Expand", value, on.shape([1, 1, call.queries, call.keys]))


def _seen(on: Emitter, call: AttentionCall, mask: Node) -> Any:
    """Of each query, whether it sees a key: bool [batch or 1, queries or 1, 1]."""
    return on.once(("seen", mask, call.causal), lambda: _make_seen(on, call, mask))


def _make_seen(on: Emitter, call: AttentionCall, mask: Node) -> Any:
    keys = on.cast(on.value(mask), torch.int32)
    keys = on.op("Reshape", keys, on.shape(_without_heads(mask)))
    if call.causal:  # of the keys up to its own
        counted = on.op("Transpose", on.op("CumSum", keys, on.constant(2)), perm=[0, 2, 1])
    else:
        counted = on.op("ReduceMax", keys, on.constant([-1]), keepdims=1)
    return on.op("Greater", counted, on.constant(0, torch.int32))


def _without_heads(mask: Node) -> list[Any]:
    """The sizes of a mask whose second of four axes is 1, without that axis."""
    batch, _, rows, keys = (1, 1, 1, 1, *shape_of(mask))[-4:]
    return [batch, rows, keys]
