"""Sums of embeddings and the norm behind them, in one kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.constants import is_weight_expression
from strop.compiler.ir.kernel_limits import why_no_kernel
from strop.compiler.ir.nodes import (
    arg,
    arguments,
    dtype_of,
    input_node,
    same_shape,
    same_size,
    shape_of,
    value_of,
)
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.pattern import NEAR, Match, Miss
from strop.compiler.rewriting.rules import Rule
from strop.kernels.limits import MOST_TABLES
from strop.passes.kernels.norms import NORMS, SKIP_NORMS, norm_arguments
from strop.passes.kernels.results import replace_results

aten = torch.ops.aten
strop = torch.ops.strop


@dataclass(frozen=True)
class _Rows:
    """Rows of a table.

    Attributes:
        table: [rows, size].
        indices: which rows.
        end: where there are no indices: before which row the first ones end.
    """

    table: Node
    indices: Node | None
    end: Node | int | None = None


class EmbeddingNorm(Rule):
    """``norm(embedding(i) + embedding(j) + table[:n])``."""

    name = "embedding-norm"
    roots = (*NORMS, *SKIP_NORMS)

    def match(self, root: Node, program: Program) -> Match | Miss:
        summands = _summands(root)
        found = [_rows_of(value) for value in summands]
        rows = [one for one in found if one is not None]
        if not any(one.indices for one in rows):
            return Miss("no sum of embeddings is before the norm", root)
        if len(rows) < len(found):
            other = summands[found.index(None)]
            return Miss("what is added too is no embedding", other, NEAR)
        reason = why_no_kernel(root, self.target) or _why_not(root, summands, rows)
        if reason:
            return Miss(reason, root, NEAR)
        return Match(root, {"rows": rows}, [root, *summands])

    def rewrite(self, match: Match, build: Builder) -> Node | None:
        rows: list[_Rows] = match["rows"]
        everywhere = _at_every_place(match.root, rows)
        indices = [_indices(one, everywhere, build) for one in rows]
        _, _, *rest = norm_arguments(match.root)
        tables = [one.table for one in rows]
        made = build.call(strop.embedding_norm.default, indices, tables, *rest)
        if match.root.target in NORMS:
            return made
        replace_results(match.root, [made], build.program)
        return None


def _summands(norm: Node) -> list[Node]:
    """What is added up before a norm, and nowhere else."""
    x, residual, *_ = norm_arguments(norm)
    pending = [x] if residual is None else [residual, x]
    found: list[Node] = []
    while pending:
        value = pending.pop()
        if value.target is aten.add.Tensor and len(value.users) == 1 and not value.kwargs:
            pending += [n for n in reversed(value.args) if isinstance(n, Node)]
        else:
            found.append(value)
    return found


def _rows_of(value: Node) -> _Rows | None:
    """The rows of a table that a value holds."""
    if value.target is aten.embedding.default:
        table, indices = arguments(value)["weight"], arguments(value)["indices"]
        return _Rows(table, indices)
    if value.target is aten.unsqueeze.default and arg(value, 1) == 0:
        value = input_node(value)
    if value.target is not aten.slice.Tensor:
        return None
    values = arguments(value)
    table = values["self"]
    is_table = is_weight_expression(table) and len(shape_of(table)) == 2
    is_first = (values["dim"], values["start"] or 0, values["step"]) == (0, 0, 1)
    end = _end(value)
    return _Rows(table, None, end) if is_table and is_first and end is not None else None


def _end(cut: Node) -> Node | int | None:
    """How many rows a slice keeps, if the program has that as a value."""
    end, size = arguments(cut)["end"], shape_of(cut)[0]
    if isinstance(size, int):
        return size
    return end if isinstance(end, Node) and same_size(value_of(end), size) else None


def _why_not(norm: Node, summands: Sequence[Node], rows: Sequence[_Rows]) -> str | None:
    if len(rows) > MOST_TABLES:
        return f"{len(rows)} embeddings are added, and a kernel takes {MOST_TABLES} at most"
    if any(len(value.users) > 1 for value in summands):
        return "an embedding is used elsewhere too"
    if norm.target in SKIP_NORMS and any(arg(part, 1) != 0 for part in norm.users):
        return "the sum is used elsewhere too"
    if len({dtype_of(one.table) for one in rows}) > 1:
        return "the tables have different dtypes"
    if _at_every_place(norm, rows) is None:
        return "no table is looked up at every place"
    return None


def _at_every_place(norm: Node, rows: Sequence[_Rows]) -> Node | None:
    """Indices as many as there are rows of the sum."""
    places = shape_of(norm_arguments(norm)[0])[:-1]
    return next(
        (one.indices for one in rows if one.indices and same_shape(shape_of(one.indices), places)),
        None,
    )


def _indices(rows: _Rows, everywhere: Node | None, build: Builder) -> Node:
    """The places of rows in their table, for each place of the sum."""
    indices = rows.indices or build.call(aten.arange.default, rows.end, dtype=torch.int64)
    if indices is everywhere:
        return indices
    assert everywhere is not None
    if same_shape(shape_of(indices), shape_of(everywhere)):
        return indices
    return build.call(aten.expand_as.default, indices, everywhere)
