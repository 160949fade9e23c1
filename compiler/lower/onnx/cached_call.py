"""One call of attention over a cache, and which operator of the runtime takes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.fx.node import Node

from strop.compiler.ir.cache_masks import cache_mask_in
from strop.compiler.ir.nodes import arguments, dtype_of, shape_of, static_int
from strop.compiler.ir.printer import size_text
from strop.compiler.lower.onnx.emitter import Emitter

# Kernels of GroupQueryAttention take heads whose size is a multiple of this.
STEP = 8


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
    k_scale: Node | None = None
    v_scale: Node | None = None

    @property
    def packed(self) -> bool:
        """Whether heads of the new tokens lie side by side in the last axis."""
        return len(shape_of(self.q)) == 3

    @property
    def size(self) -> int:
        """Of a head of keys; 0 where it is dynamic."""
        return static_int(shape_of(self.past_k)[-1]) or 0

    @property
    def sizes(self) -> tuple[Any, Any, Any]:
        """How many rows, new tokens and places in all there are."""
        batch, seq = shape_of(self.q)[0], shape_of(self.q)[-2]
        return batch, seq, shape_of(self.mask)[-1]


@dataclass(frozen=True)
class Seen:
    """What a mask is known to show: real places up to a token's own, or fewer.

    Attributes:
        places: of each row which places are real, [batch, total] int.
        window: how many places up to its own a token sees; None for all.
    """

    places: Node
    window: int | None


def seen(on: Emitter, call: CachedCall) -> Seen | str:
    """What a call's mask shows, or why ``GroupQueryAttention`` does not take the call, in words.

    The operator hides what comes after a token by itself, so it takes only masks that do so too.
    """
    mask = cache_mask_in(call.mask, on.program)
    if mask is None or len(shape_of(call.mask)) != 4:
        return "the mask may show other places than those before a token"
    if any(past.op != "placeholder" for past in (call.past_k, call.past_v)):
        return "they are computed before attention reads them"
    if not on.target.contrib:
        return f"{on.target.name} has no operator that continues a cache in place"
    if not on.target.fuses(dtype_of(call.q)):
        return f"{on.target.name} continues no cache of {dtype_of(call.q)} in place"
    size, of_values = call.size, static_int(shape_of(call.past_v)[-1])
    if not size or size != of_values:
        return f"heads have {size or 'any number of'} channels for keys, {of_values} for values"
    if size % STEP:
        return f"heads have {size} channels, and the operator takes multiples of {STEP}"
    found = arguments(mask)
    return Seen(found["mask"], found["window"])


def continues_batches(on: Emitter, call: CachedCall) -> bool:
    """Whether several rows may have several new tokens behind a cache."""
    return all(_may_exceed_one(on, size) for size in call.sizes[:2])


def _may_exceed_one(on: Emitter, size: Any) -> bool:
    known = static_int(size)
    if known is not None:
        return known > 1
    name = size_text(size, on.program.symbols)
    most = next((dim.max for dim in on.program.contract.dims if dim.name == name), None)
    return most is None or most > 1


def fits(on: Emitter, call: CachedCall) -> Any:
    """Whether the runtime takes the sizes: several tokens of several rows need an empty cache."""
    one_row, one_token, first = _situation(on, call)
    return on.op("Or", on.op("Or", one_row, one_token), first)


def fits_turned(on: Emitter, call: CachedCall, places: Node) -> Any:
    """Whether it takes the sizes, and turns queries and keys by positions.

    Of several tokens behind an empty cache it counts the places itself, padding among them.
    """
    one_row, one_token, first = _situation(on, call)
    real = on.cast(on.cast(on.value(places), torch.bool), torch.int32)
    all_real = on.cast(on.op("ReduceMin", real, keepdims=0), torch.bool)
    behind_none = on.op("And", first, all_real)
    behind_some = on.op("And", one_row, on.op("Not", first))
    return on.op("Or", one_token, on.op("Or", behind_none, behind_some))


def _situation(on: Emitter, call: CachedCall) -> tuple[Any, Any, Any]:
    """Whether there is one row, whether one new token, and whether there is nothing before it."""
    batch, seq, total = (on.size(size) for size in call.sizes)
    one = on.constant([1])
    return on.op("Equal", batch, one), on.op("Equal", seq, one), on.op("Equal", seq, total)
