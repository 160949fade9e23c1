"""The rewrite: real positions in one row, one after another; all positions where they are mixed."""

from __future__ import annotations

import operator

import torch
from torch import fx
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.nodes import (
    arg,
    arguments,
    input_node,
    same_size,
    shape_of,
    static_int,
    tensors_of,
)
from strop.passes.ragged.analysis import Analysis, is_by_element
from strop.passes.ragged.axes import KEPT
from strop.passes.ragged.states import CLEAN, as_nodes, is_leading

aten = torch.ops.aten
strop = torch.ops.strop
# Operators with a whole shape among their arguments.
_SIZED = (
    aten._unsafe_view.default,
    aten.expand.default,
    aten.reshape.default,
    aten.view.default,
)


class Rows:
    """Where each position, [batch, seq], stands among those that are computed, and back.

    Computed are real positions, those that are read by their number, and every position of a
    sequence that is all padding: what the original gives for such a sequence stays, and there is
    always one.

    Attributes:
        real: bool [batch, seq].
        kept: whether a position is computed, bool [batch, seq].
        chosen: the number, in batch * seq, of each position that is computed; int64 [rows].
        places: by position, the row in which it is computed; for others that of one before it, or
            the first; int64 [batch * seq].
    """

    def __init__(self, analysis: Analysis, build: Builder) -> None:
        mask = analysis.padding.mask
        self.sizes = [_size(mask, axis, build) for axis in (0, 1)]
        self.real = build.call(aten.ne.Scalar, mask, analysis.padding.value)
        empty = build.call(aten.logical_not.default, build.call(aten.any.dim, self.real, 1, True))
        kept = build.call(aten.logical_or.default, self.real, empty)
        for position in sorted(analysis.reads):
            column = build.call(aten.select.int, kept, 1, position)
            true = build.call(aten.ones_like.default, column)
            kept = build.call(aten.select_scatter.default, kept, true, 1, position)
        self.kept = kept
        flat = build.call(aten.reshape.default, kept, [-1])
        self.chosen = build.call(aten.select.int, build.call(aten.nonzero.default, flat), 1, 0)
        counted = build.call(aten.cumsum.default, flat, 0)
        self.places = build.call(aten.clamp.default, build.call(aten.sub.Tensor, counted, 1), 0)

    def places_of(self, position: int, build: Builder) -> Node:
        """The rows that hold one position of each sequence, int64 [batch]."""
        table = build.call(aten.reshape.default, self.places, self.sizes)
        return build.call(aten.select.int, table, 1, position)


def _size(x: Node, axis: int, build: Builder) -> Node | int:
    size = static_int(shape_of(x)[axis])
    return build.call(aten.sym_size.int, x, axis) if size is None else size


class Packing:
    """Rewrites one program; values in packed form are [1, rows, ...]."""

    def __init__(self, analysis: Analysis, made_by: str) -> None:
        self.program = analysis.program
        self.states = analysis.states
        self.made_by = made_by
        first = Builder(self.program, next(iter(self.program.calls())), made_by)
        self.rows = Rows(analysis, first)
        self.made = first.created
        self.packed: dict[Node, Node] = {}
        self.masks: dict[Node, Node] = {}
        self.old: dict[Node, None] = {}  # Calls that have another in packed form beside them.

    def run(self) -> None:
        """Compute everything that works on positions one by one in packed form."""
        for node in list(self.program.calls()):
            if self._pack_call(node):
                self.old[node] = None
        for node in self.old:
            self._replace(node)
        self._fill_outputs()
        self.program.erase_dead([*self.old, *self.made])

    def _pack_call(self, node: Node) -> bool:
        """Compute a value in packed form, beside the old one; False where that is not possible."""
        build = Builder(self.program, node, self.made_by)
        if self._is_attention_of_rows(node):
            self.packed[node] = self._attention(node, build)
            return True
        if not self._is_packable(node):
            return False
        rank = None if node.target in KEPT else len(tensors_of(node)[0].shape)
        rows = {n: self._rows_of(n, rank or len(shape_of(n)), build) for n in _mains(node)}
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: rows.get(n, n))
        if node.target in _SIZED:
            args = (args[0], [1, -1, *shape_of(node)[2:]])
        self.packed[node] = build.call(node.target, *args, **kwargs)
        return True

    def _is_packable(self, node: Node) -> bool:
        state = self.states.get(node)
        if state is None or state.tokens is None:
            return False
        kept = KEPT.get(node.target)
        known = is_by_element(node.target) or node.target is operator.getitem
        if not (known or (kept is not None and kept.packable)):
            return False
        if node.target in _SIZED and any(static_int(s) is None for s in shape_of(node)[2:]):
            return False
        if node.target is aten.rms_norm.default and len(shape_of(node)) > 3:
            return False  # Torch finds no type for a number of rows that it does not know.
        return all(self._is_leading(n) for n in (node, *_mains(node)))

    def _is_attention_of_rows(self, node: Node) -> bool:
        """Whether sequences look at themselves alone, and only the key says what is hidden.

        The packed form has no bound of its scores.
        """
        if node.target is not strop.attention.default or arguments(node)["softcap"]:
            return False
        *xs, mask = (arg(node, i) for i in range(4))
        if not all(self.states[x].tokens and self._is_leading(x) for x in xs):
            return False
        batch, heads, queries, keys = [None] * (4 - len(shape_of(mask))) + list(shape_of(mask))
        whole = all(map(same_size, (batch or 0, keys or 0), self._both()))
        return whole and static_int(heads) == static_int(queries) == 1

    def _attention(self, node: Node, build: Builder) -> Node:
        """The same attention in packed form."""
        *xs, mask = (input_node(node, i) for i in range(4))
        rows = [self._rows_of(x, len(shape_of(x)), build) for x in xs]
        if mask not in self.masks:
            flat = build.call(aten.reshape.default, mask, [-1])
            self.masks[mask] = build.call(aten.index_select.default, flat, 0, self.rows.chosen)
        places = (self.rows.kept, self.rows.chosen, self.rows.places)
        return build.call(
            strop.ragged_attention.default, *rows, self.masks[mask], *places, *node.args[4:]
        )

    def _is_leading(self, node: Node) -> bool:
        tokens = self.states[node].tokens
        return tokens is None or is_leading(tokens, len(tensors_of(node)[0].shape))

    def _rows_of(self, x: Node, rank: int, build: Builder) -> Node:
        """A value in packed form; one that is the same at all positions stays as it is.

        Args:
            x: [batch or 1, seq or 1, ...], or with fewer axes, of which the last are meant.
            rank: of the result that it is broadcast to, or its own.
            build: at the first place where it is needed.
        """
        if x in self.packed:
            return self.packed[x]
        shape = shape_of(x)
        leading = [1] * (rank - len(shape)) + list(shape)
        if all(static_int(size) == 1 for size in leading[:2]) or len(shape) < rank - 1:
            return x
        rest = [_size(x, i - rank, build) for i in range(2, rank)]
        whole = x
        if not (len(shape) == rank and all(map(same_size, shape[:2], self._both()))):
            whole = build.call(aten.expand.default, x, [*self.rows.sizes, *rest])
        flat = build.call(aten.reshape.default, whole, [1, -1, *rest])
        self.packed[x] = build.call(aten.index_select.default, flat, 1, self.rows.chosen)
        return self.packed[x]

    def _both(self) -> tuple[int | torch.SymInt, ...]:
        return shape_of(self.rows.real)

    def _replace(self, node: Node) -> None:
        """Give those who read a packed value in the old form what they need of it."""
        build = Builder(self.program, node, self.made_by)
        for user in [u for u in node.users if u not in self.old and _is_position(u)]:
            self._take_position(user, node)
        if any(user not in self.old for user in node.users):
            whole = self._unpacked(node, build)
            node.replace_all_uses_with(whole, lambda user: user not in self.old)
            self.states[whole] = self.states[node]

    def _take_position(self, user: Node, node: Node) -> None:
        """One position of each sequence, from the row in which it was computed."""
        build = Builder(self.program, user, self.made_by)
        places = self.rows.places_of(int(arg(user, 2)), build)
        taken = build.call(aten.index_select.default, self.packed[node], 1, places)
        user.replace_all_uses_with(build.call(aten.select.int, taken, 0, 0))
        self.program.graph.erase_node(user)

    def _unpacked(self, node: Node, build: Builder) -> Node:
        """A packed value as [batch, seq, ...]; what stands at padded positions is some other's."""
        packed = self.packed[node]
        rest = [_size(packed, i, build) for i in range(2, len(shape_of(packed)))]
        all_rows = build.call(aten.index_select.default, packed, 1, self.rows.places)
        return build.call(aten.reshape.default, all_rows, [*self.rows.sizes, *rest])

    def _fill_outputs(self) -> None:
        """Zeros at padded positions of outputs."""
        end = self.program.graph.output_node()
        build = Builder(self.program, end, self.made_by)
        for node in dict.fromkeys(self.program.outputs):
            if self.states.get(node, CLEAN).tokens is None:
                continue
            real = self.rows.real
            for _ in shape_of(node)[2:]:
                real = build.call(aten.unsqueeze.default, real, -1)
            filled = build.call(aten.where.ScalarOther, real, node, 0)
            end.replace_input_with(node, filled)


def _mains(node: Node) -> list[Node]:
    """The values whose positions a call works on."""
    if node.target in KEPT:
        given = arguments(node)
        return [n for name in KEPT[node.target].main for n in as_nodes(given[name])]
    return [n for n in node.all_input_nodes if tensors_of(n)]


def _is_position(node: Node) -> bool:
    """Whether a reader of positions takes one of them by its number."""
    return node.target is aten.select.int and int(arg(node, 1)) % len(shape_of(arg(node, 0))) == 1
