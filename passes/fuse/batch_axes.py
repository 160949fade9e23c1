"""Attention with any batch axes brought to [batch, heads, ...], and back."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass

import torch
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.nodes import same_shape, same_size, shape_of
from strop.passes.fuse.scores import Sizes

aten = torch.ops.aten


@dataclass(frozen=True)
class BatchAxes:
    """The two batch axes of an attention; ``heads`` is the number of its query heads."""

    heads: int

    def of_value(self, x: Node, build: Builder) -> Node:
        """Queries, keys or values, whose batch axes are whole, as [batch, heads, rows, size]."""
        lead = shape_of(x)[:-2]
        if len(lead) == 2:
            return x
        return self._split(_flat(x, len(lead), build), build)

    def of_mask(self, mask: Node, lead: Sizes, q: Node, build: Builder) -> Node:
        """A mask, bias or factor that was spread over scores with the batch axes ``lead``.

        Args:
            mask: broadcasts to [*lead, rows, columns].
            lead: those batch axes.
            q: the queries, [batch, heads, rows, size].
            build: where to put new nodes.

        Returns:
            A value that broadcasts to [batch, heads, rows, columns].
        """
        own = shape_of(mask)[:-2]
        if len(lead) == 2:
            return mask
        if all(same_size(size, 1) for size in own):
            return mask if len(own) < 3 else _flat(mask, len(own), build)
        for _ in range(len(lead) - len(own)):
            mask = build.call(aten.unsqueeze.default, mask, 0)
        if len(lead) > 2 and same_size(lead[-1], self.heads):
            wide = self._spread(mask, lead, len(lead) - 1, q, build)
            return build.call(aten.flatten.using_ints, wide, 0, len(lead) - 2)
        wide = self._spread(mask, lead, len(lead), q, build)
        return self._split(_flat(wide, len(lead), build), build)

    def back(self, x: Node, lead: Sizes, build: Builder) -> Node:
        """A result [batch, heads, rows, size] with the batch axes that its readers expect."""
        if len(lead) == 2:
            return x
        flat = build.call(aten.flatten.using_ints, x, 0, 1)
        if len(lead) == 1:
            return flat
        if not lead:
            return build.call(aten.squeeze.dim, flat, 0)
        sizes = [s if isinstance(s, int) else -1 for s in lead]
        return build.call(aten.unflatten.int, flat, 0, sizes)

    def _split(self, flat: Node, build: Builder) -> Node:
        return build.call(aten.unflatten.int, flat, 0, [-1, self.heads])

    def _spread(self, mask: Node, lead: Sizes, count: int, q: Node, build: Builder) -> Node:
        """Repeat a mask over the first ``count`` batch axes of the scores."""
        own = shape_of(mask)
        if same_shape(own[:count], lead[:count]):
            return mask
        sizes = [
            -1 if same_size(a, b) else self._size(b, lead, q, build)
            for a, b in zip(own[:count], lead[:count])
        ]
        return build.call(aten.expand.default, mask, sizes + [-1] * (len(own) - count))

    def _size(self, size: int | torch.SymInt, lead: Sizes, q: Node, build: Builder) -> int | Node:
        """A size of ``lead``; a dynamic one from the batch of the queries."""
        if isinstance(size, int):
            return size
        others = math.prod(s for s in lead if isinstance(s, int))
        whole = build.call(aten.sym_size.int, q, 0)
        if self.heads > 1:
            whole = build.call(operator.mul, whole, self.heads)
        return build.call(operator.floordiv, whole, others) if others > 1 else whole


def _flat(x: Node, axes: int, build: Builder) -> Node:
    """The first ``axes`` axes as one; a new axis where there are none."""
    if axes == 0:
        return build.call(aten.unsqueeze.default, x, 0)
    return x if axes == 1 else build.call(aten.flatten.using_ints, x, 0, axes - 1)


def find_batch_axes(leads: list[Sizes]) -> BatchAxes | str:
    """The batch axes in which to write an attention whose scores have had those of ``leads``.

    Args:
        leads: those of the product of queries and keys first.

    Returns:
        The axes, or why there are none.
    """
    if any(sum(isinstance(s, torch.SymInt) for s in lead) > 1 for lead in leads if len(lead) != 2):
        return "several batch axes are dynamic"
    product = leads[0]
    # One axis is batch and heads together, unless a view tells them apart.
    two = [lead for lead in leads if len(lead) == 2]
    heads = two[0][1] if two else product[-1] if len(product) > 2 else 1
    if isinstance(heads, torch.SymInt):
        return "the number of heads is dynamic"
    whole = math.prod(product)
    other_heads = any(not same_size(lead[1], heads) for lead in two)
    if other_heads or any(not same_size(math.prod(lead), whole) for lead in leads):
        return "the batch axes of scores and values differ"
    return BatchAxes(int(heads))
