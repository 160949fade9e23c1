"""``GroupQueryAttention`` over a cache: docs/ContribOperators.md of ONNX Runtime."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx.node import Node

from strop.compiler.ir.nodes import input_node, shape_of, value_of
from strop.compiler.lower.onnx.attention_call import joined, split
from strop.compiler.lower.onnx.attention_inputs import full_mask, scaled
from strop.compiler.lower.onnx.cached_call import STEP, CachedCall
from strop.compiler.lower.onnx.emitter import MICROSOFT, Emitter
from strop.compiler.lower.onnx.rotary_tables import Rotated, rotated

aten = torch.ops.aten


@dataclass(frozen=True)
class Given:
    """What the operator reads beside the caches.

    Attributes:
        new: queries, keys and values, before they are turned where the operator turns them; one
            value that holds all three where they lie side by side.
        last: the number of the last place of each row, int32 [batch]. Padding behind it is no end:
            the bias hides it.
        total: of all places, int32 [].
        bias: what is added to scores, [batch or 1, heads or 1, seq, total].
        turned: how queries and keys are turned; None where they are not, or are already.
        tables: cos and sin of every position, and the positions of the new tokens.
    """

    new: tuple[Node, ...]
    last: Any
    total: Any
    bias: Any
    turned: Rotated | None = None
    tables: tuple[Any, Any, Any] = (None, None, None)

    def known(self, on: Emitter) -> dict[Node, Any]:
        """Values of which queries, keys and values are computed."""
        positions = [] if self.turned is None else [self.turned.positions]
        return {node: on.value(node) for node in (*self.new, *positions)}


def given(on: Emitter, call: CachedCall, turns: bool) -> Given:
    """Emit what a call reads, outside of branches, whose nodes nothing else can read.

    Args:
        on: emits it.
        call: the call.
        turns: the operator may turn queries and keys.
    """
    turned = rotated(call.q, call.k, on.program) if turns and call.scale > 0 else None
    if turned is not None and not _turns(call, turned):
        turned = None
    new = (call.q, call.k, call.v) if turned is None else (turned.q, turned.k, call.v)
    joint = _joint(*new) if call.scale > 0 else None
    return Given(
        new if joint is None else (joint,),
        on.once(("last places", str(call.sizes)), lambda: _last_places(on, call)),
        on.once(("total", str(call.sizes[2])), lambda: _total(on, call)),
        full_mask(on, call.mask, call.q, call.sizes[2]),
        turned,
        (None, None, None) if turned is None else _tables(on, turned),
    )


def _turns(call: CachedCall, turned: Rotated) -> bool:
    """Whether the operator takes the sizes of what is turned."""
    return int(shape_of(turned.cos)[-1]) % STEP == 0 and call.size % (2 * STEP) == 0


def _joint(*new: Node) -> Node | None:
    """The value that is split into queries, keys and values, and nothing else."""
    if any(n.target is not operator.getitem for n in new):
        return None
    parts, places = {input_node(n) for n in new}, [n.args[1] for n in new]
    whole = parts.pop()
    if parts or whole.target is not aten.split_with_sizes.default or places != [0, 1, 2]:
        return None
    return input_node(whole) if len(value_of(whole)) == 3 else None


def _last_places(on: Emitter, call: CachedCall) -> Any:
    batch, _, total = call.sizes
    last = on.op("Sub", on.size(total), on.constant([1]))
    return on.op("Expand", on.cast(last, torch.int32), on.shape([batch]))


def _total(on: Emitter, call: CachedCall) -> Any:
    return on.op("Squeeze", on.cast(on.size(call.sizes[2]), torch.int32))


def _tables(on: Emitter, turned: Rotated) -> tuple[Any, Any, Any]:
    """cos and sin, [limit, half], which the runtime computes once, when it loads the file."""

    def table(node: Node) -> Any:
        numbers = (on.constant(0), on.constant(turned.limit), on.constant(1))
        every = on.op("Unsqueeze", on.op("Range", *numbers), on.constant([0]))
        with on.anew([node], {turned.positions: every}):
            return on.op("Squeeze", on.value(node), on.constant([0]))

    cos: Any = on.once(("table", turned.cos), lambda: table(turned.cos))
    sin: Any = on.once(("table", turned.sin), lambda: table(turned.sin))
    return cos, sin, on.value(turned.positions)


def grouped_query(
    on: Emitter, call: CachedCall, given: Given, window: int | None
) -> tuple[Any, ...]:
    """Emit the operator; returns the result and the longer caches."""
    new, scale = _new(on, call, given)
    made = on.op(
        "GroupQueryAttention",
        *new,
        on.value(call.past_k),
        on.value(call.past_v),
        given.last,
        given.total,
        *given.tables,
        given.bias,
        None,
        on.value(call.k_scale),
        on.value(call.v_scale),
        domain=MICROSOFT,
        num_heads=call.q_heads,
        kv_num_heads=call.kv_heads,
        scale=scale,
        softcap=call.softcap,
        local_window_size=-1 if window is None else window,
        do_rotary=None if given.turned is None else 1,
        **_kept(call),
        outputs=3,
    )
    out = made[0] if call.packed else split(on, made[0], call.q_heads, call.size)
    return out, made[1], made[2]


def _kept(call: CachedCall) -> dict[str, Any]:
    """How the operator keeps the caches; in their own floats by default."""
    if call.k_scale is None:
        return {}
    each = "PER_CHANNEL"
    return {"k_quant_type": each, "v_quant_type": each, "kv_cache_bit_width": 8}


def _new(on: Emitter, call: CachedCall, given: Given) -> tuple[list[Any], float]:
    """Queries, keys and values in packed heads, and the scale of scores."""
    if len(given.new) == 1:
        return [on.value(given.new[0]), None, None], call.scale
    q, scale = scaled(on, given.new[0], call.scale)
    values = [q, *map(on.value, given.new[1:])]
    if not call.packed:
        heads = (call.q_heads, call.kv_heads, call.kv_heads)
        values = [joined(on, x, count, call.size) for x, count in zip(values, heads)]
    return values, scale
