"""Embedding sums: a look-up at constant places is a constant.

BERT adds three tables: words, positions 0..n-1, and token types that are all zero by default. The
last two are one constant table cut to length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.constants import is_weight_expression
from strop.compiler.ir.families import ZEROS
from strop.compiler.ir.nodes import arg, same_shape, same_size, shape_of
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.passes import RulePass
from strop.compiler.rewriting.pattern import NEAR, Match, Miss
from strop.compiler.rewriting.rules import Rule
from strop.passes.cleanup.masks import Grid, Reader

aten = torch.ops.aten

# Operators whose result holds nothing but elements of their first argument.
_PICKING = (
    aten.expand.default,
    aten.gather.default,
    aten.index.Tensor,
    aten.slice.Tensor,
    aten.unsqueeze.default,
    aten.reshape.default,
)


def uniform_index(value: Node, program: Program) -> int | None:
    """The number of which every element of an index tensor is known to be equal, or None."""
    while value.target in _PICKING:
        value = arg(value, 0)
    if value.target in ZEROS:
        return 0
    weight = program.weight_of(value)
    numbers = [] if weight is None else weight.unique().tolist()
    return int(numbers[0]) if len(numbers) == 1 else None


class ConstantRow(Rule):
    """One row of the table wherever it is looked up: the row itself, if it is only added."""

    name = "embedding-row"
    roots = (aten.embedding.default,)

    def match(self, root: Node, program: Program) -> Match | Miss:
        table, indices = root.args[:2]
        assert isinstance(indices, Node)
        row = uniform_index(indices, program)
        if row is None:
            return Miss("the indices are not all one constant", indices)
        for user in root.users:
            other = next((a for a in user.args if a is not root), None)
            if user.target is not aten.add.Tensor or not isinstance(other, Node):
                return Miss("the rows are not only added", user, NEAR)
            if not same_shape(shape_of(other), shape_of(root)):
                return Miss("the other summand has another shape", user, NEAR)
        return Match(root, {"table": table, "row": row}, [root])

    def rewrite(self, match: Match, build: Builder) -> Node:
        return build.call(aten.select.int, match["table"], 0, match["row"])


class PositionRows(Rule):
    """Rows 0..n-1 in order: the table cut to length."""

    name = "embedding-range"
    roots = (aten.embedding.default,)

    def match(self, root: Node, program: Program) -> Match | Miss:
        table, indices = root.args[:2]
        assert isinstance(indices, Node) and isinstance(table, Node)
        if Reader(program).meaning(indices) != Grid(-1):
            return Miss("the indices are not 0, 1, 2, ...", indices)
        shape = shape_of(indices)
        if len(shape) > 1 and not (len(shape) == 2 and same_size(shape[0], 1)):
            return Miss("the positions are repeated over the batch", indices, NEAR)
        if not is_weight_expression(table):
            return Miss("the table is not a weight", table, NEAR)
        return Match(root, {"table": table, "shape": shape}, [root])

    def check(self, match: Match, program: Program) -> str | None:
        length = match["shape"][-1]
        if isinstance(length, torch.SymInt) and input_axis(program, length) is None:
            return "the length is not a dim of an input"
        return None

    def rewrite(self, match: Match, build: Builder) -> Node:
        length: Any = match["shape"][-1]
        if isinstance(length, torch.SymInt):
            axis = input_axis(build.program, length)
            assert axis is not None
            length = build.call(aten.sym_size.int, *axis)
        rows = build.call(aten.slice.Tensor, match["table"], 0, 0, length)
        return build.call(aten.unsqueeze.default, rows, 0) if len(match["shape"]) == 2 else rows


def input_axis(program: Program, size: torch.SymInt) -> tuple[Node, int] | None:
    """An input and its axis that have this dynamic size."""
    for node in program.graph.find_nodes(op="placeholder"):
        for axis, found in enumerate(shape_of(node)):
            if same_size(found, size):
                return node, axis
    return None


class RowIntoTable(Rule):
    """``x + row + table[:n]`` as ``x + (table + row)[:n]``."""

    name = "embedding-sum"
    roots = (aten.add.Tensor,)

    def match(self, root: Node, program: Program) -> Match | Miss:
        inner, last = root.args[:2]
        if not isinstance(inner, Node) or inner.target is not aten.add.Tensor:
            return Miss("no sum of three", root)
        if root.kwargs or inner.kwargs or len(inner.users) > 1:
            return Miss("the inner sum is used elsewhere or scaled", inner)
        x, middle = inner.args[:2]
        for row, cut in ((last, middle), (middle, last)):
            table = _cut_table(cut)
            if table is not None and _is_row(row):
                return Match(root, {"x": x, "row": row, "cut": cut, "table": table}, [root, inner])
        return Miss("the summands are not a row and a table cut to length", root)

    def rewrite(self, match: Match, build: Builder) -> Node:
        table = build.call(aten.add.Tensor, match["table"], match["row"])
        return build.call(aten.add.Tensor, match["x"], _replay(match["cut"], table, build))


def _is_row(value: Any) -> bool:
    return isinstance(value, Node) and is_weight_expression(value) and len(shape_of(value)) == 1


def _cut_table(value: Any) -> Node | None:
    """The table under ``unsqueeze(slice(table, 0, ...), 0)``."""
    if isinstance(value, Node) and value.target is aten.unsqueeze.default and arg(value, 1) == 0:
        value = arg(value, 0)
    if not isinstance(value, Node) or value.target is not aten.slice.Tensor or value.args[1] != 0:
        return None
    table = value.args[0]
    assert isinstance(table, Node)
    return table if is_weight_expression(table) and len(shape_of(table)) == 2 else None


def _replay(cut: Node, table: Node, build: Builder) -> Node:
    """The same cut of another table."""
    if cut.target is aten.unsqueeze.default:
        return build.call(cut.target, _replay(arg(cut, 0), table, build), *cut.args[1:])
    return build.call(cut.target, table, *cut.args[1:])


@dataclass(frozen=True)
class FuseEmbeddings(RulePass):
    """Replace look-ups at constant places by constants, and add those up beforehand."""

    name = "embeddings"

    def rules(self) -> Sequence[Rule]:
        return (ConstantRow(), PositionRows(), RowIntoTable())
