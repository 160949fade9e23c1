"""One call of attention, in either layout, for the emitters that take it apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx.node import Node

from strop.compiler.ir.nodes import dtype_of, same_size, shape_of, static_int
from strop.compiler.lower.onnx.emitter import Emitter
from strop.compiler.lower.onnx.refusal import NotLowered


@dataclass(frozen=True)
class AttentionCall:
    """softmax(scale * q k^T + mask) v, where scores may be bounded before they are masked.

    Attributes:
        q: queries, [batch, seq, heads*size] or [batch, heads, seq, size].
        k: keys; their batch may be 1.
        v: values; likewise.
        mask: bool (True = look at) or float (added), [batch, heads, seq, keys] with broadcasting.
        heads: of queries.
        kv_heads: of keys and values.
        scale: of scores.
        causal: hides keys that come after the query, counted from the first.
        softcap: scores x become ``softcap * tanh(x / softcap)``; 0 leaves them.
    """

    q: Node
    k: Node
    v: Node
    mask: Node | None
    heads: int
    kv_heads: int
    scale: float
    causal: bool
    softcap: float = 0.0

    @staticmethod
    def of_sdpa(
        on: Emitter,
        q: Any,
        k: Any,
        v: Any,
        mask: Any,
        dropout: float,
        causal: bool,
        scale: float | None,
        gqa: bool,
    ) -> AttentionCall:
        """The call that torch's own operator stands for.

        Raises:
            NotLowered: it has another number of axes, drops weights, or repeats queries.
        """
        if len(shape_of(q)) != 4 or dropout:
            raise NotLowered("attention that is not [batch, heads, seq, size], or with dropout")
        if not gqa and not same_size(shape_of(q)[1], shape_of(on.node)[1]):
            raise NotLowered("attention whose queries are repeated over the heads of the keys")
        heads, kv_heads = static_int(shape_of(q)[1]), static_int(shape_of(k)[1])
        if heads is None or kv_heads is None:
            raise NotLowered("attention with a dynamic number of heads")
        scale = 1 / math.sqrt(int(shape_of(q)[-1])) if scale is None else scale
        return AttentionCall(q, k, v, mask, heads, kv_heads, scale, causal)

    @property
    def packed(self) -> bool:
        """Whether heads lie side by side in the last axis."""
        return len(shape_of(self.q)) == 3

    @property
    def queries(self) -> int | torch.SymInt:
        """The number of queries."""
        return shape_of(self.q)[-2]

    @property
    def keys(self) -> int | torch.SymInt:
        """The number of keys."""
        return shape_of(self.k)[-2]

    @property
    def square(self) -> bool:
        """Whether there are as many keys as queries, at every size."""
        return same_size(self.queries, self.keys)

    @property
    def has_bool_mask(self) -> bool:
        """Whether the mask says which keys are looked at."""
        return self.mask is not None and dtype_of(self.mask) == torch.bool

    def size(self, of: Node) -> int:
        """The size of a head of queries, keys or values.

        Raises:
            NotLowered: it is dynamic.
        """
        width = static_int(shape_of(of)[-1])
        if width is None:
            raise NotLowered("attention with a dynamic size of heads")
        return width // (self.heads if of is self.q else self.kv_heads) if self.packed else width

    def require_batch(self) -> None:
        """Check that keys and values have the queries' batch, or one for all.

        Raises:
            NotLowered: queries are repeated over theirs.
        """
        batch = shape_of(self.q)[0]
        for one in (self.k, self.v):
            if not (same_size(shape_of(one)[0], batch) or same_size(shape_of(one)[0], 1)):
                raise NotLowered("attention whose queries are repeated over the batch of the keys")


def split(on: Emitter, value: Any, heads: int, size: int) -> Any:
    """[batch, rows, heads*size] -> [batch, heads, rows, size]."""
    apart = on.op("Reshape", value, on.constant([0, 0, heads, size]))
    return on.op("Transpose", apart, perm=[0, 2, 1, 3])


def joined(on: Emitter, value: Any, heads: int, size: int) -> Any:
    """[batch, heads, rows, size] -> [batch, rows, heads*size]."""
    together = on.op("Transpose", value, perm=[0, 2, 1, 3])
    return on.op("Reshape", together, on.constant([0, 0, heads * size]))
