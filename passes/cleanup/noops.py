"""Remove operators that change nothing, so that patterns see one form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.contract import DTYPE_NAMES
from strop.compiler.ir.families import CASTS, COPIES, DROPOUTS, EXPANSIONS, PADS, VIEWS
from strop.compiler.ir.nodes import arg, dtype_of, input_node, same_shape, shape_of
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.passes import RulePass
from strop.compiler.rewriting.pattern import NEAR, Match, Miss
from strop.compiler.rewriting.rules import Rule

aten = torch.ops.aten

_REAL = DTYPE_NAMES.keys() - {torch.complex64}


class ViewIsReshape(Rule):
    """``reshape`` for every ``view``: the IR does not describe memory layout.

    Without it, removing a copy would leave a ``view`` that eager torch refuses.
    """

    name = "view-is-reshape"
    roots = (aten.view.default, aten._unsafe_view.default)

    def match(self, root: Node, program: Program) -> Match | Miss:
        return Match(root, {}, [root])

    def rewrite(self, match: Match, build: Builder) -> Node:
        return build.call(aten.reshape.default, *match.root.args)


class SameValue(Rule):
    """An operator whose result is its first input, element for element."""

    name = "noop"
    roots = (
        *COPIES,
        *DROPOUTS,
        *CASTS,
        *VIEWS,
        *EXPANSIONS,
        *PADS,
        aten.slice.Tensor,
        aten.add.Tensor,
        aten.sub.Tensor,
        aten.mul.Tensor,
        aten.div.Tensor,
    )

    def match(self, root: Node, program: Program) -> Match | Miss:
        source = input_node(root)
        if dtype_of(source) != dtype_of(root) or not same_shape(shape_of(source), shape_of(root)):
            return Miss("shape or dtype changes", root)
        if root.target in (aten.add.Tensor, aten.sub.Tensor) and not _is_number(root, 0):
            return Miss("adds something", root)
        if root.target in (aten.mul.Tensor, aten.div.Tensor) and not _is_number(root, 1):
            return Miss("scales", root)
        if root.target in PADS and any(width != 0 for width in arg(root, 1)):
            return Miss("pads", root)
        if root.target in DROPOUTS and arg(root, 2) and arg(root, 1):
            return Miss("drops elements: it is in train mode", root, NEAR)
        return Match(root, {"x": source}, [root])

    def rewrite(self, match: Match, build: Builder) -> Node:
        source: Node = match["x"]
        return source


def _is_number(node: Node, number: float) -> bool:
    return bool(node.args[1] == number)


class CastChain(Rule):
    """bool or int widened and narrowed again: ``to(to(x, wider), dtype of x)`` is ``x``."""

    name = "cast-chain"
    roots = CASTS

    def match(self, root: Node, program: Program) -> Match | Miss:
        inner = input_node(root)
        if inner.target not in CASTS:
            return Miss("no cast inside", root)
        source = input_node(inner)
        if dtype_of(source) != dtype_of(root):
            return Miss("ends in another dtype", root)
        if not torch.can_cast(dtype_of(source), dtype_of(inner)):
            return Miss("the inner cast may lose digits", inner, NEAR)
        return Match(root, {"x": source}, [root, inner])

    def check(self, match: Match, program: Program) -> str | None:
        source, inner = match["x"], match.inside[1]
        reaches = dtype_of(inner) != torch.float16 or dtype_of(source) != torch.bfloat16
        if not {dtype_of(inner), dtype_of(source)} <= _REAL:
            return f"{dtype_of(inner)} may not hold every {dtype_of(source)}"
        if not reaches or _digits(dtype_of(inner)) < _digits(dtype_of(source)):
            return f"{dtype_of(inner)} cannot hold every {dtype_of(source)}"
        return None

    def rewrite(self, match: Match, build: Builder) -> Node:
        source: Node = match["x"]
        return source


def _digits(dtype: torch.dtype) -> int:
    """Binary digits of the integers that a dtype holds without a gap; fewer than 8 for truth."""
    if dtype == torch.bool:
        return 1
    if dtype.is_floating_point:
        return 1 - int(math.log2(torch.finfo(dtype).eps))
    return torch.iinfo(dtype).bits


class ViewChain(Rule):
    """A view of a view is one view, or none where the first shape comes back."""

    name = "view-chain"
    roots = VIEWS

    def match(self, root: Node, program: Program) -> Match | Miss:
        inner = input_node(root)
        if inner.target not in VIEWS:
            return Miss("no view inside", root)
        source = input_node(inner)
        if not same_shape(shape_of(source), shape_of(root)):
            return Miss("the second view does not restore the first shape", root)
        return Match(root, {"x": source}, [root, inner])

    def rewrite(self, match: Match, build: Builder) -> Node:
        source: Node = match["x"]
        return source


class TransposePair(Rule):
    """The same two axes exchanged twice."""

    name = "transpose-pair"
    roots = (aten.transpose.int,)

    def match(self, root: Node, program: Program) -> Match | Miss:
        inner = input_node(root)
        if inner.target is not aten.transpose.int:
            return Miss("no transpose inside", root)
        if _axes(root) != _axes(inner):
            return Miss("other axes", inner)
        return Match(root, {"x": inner.args[0]}, [root, inner])

    def rewrite(self, match: Match, build: Builder) -> Node:
        source: Node = match["x"]
        return source


def _axes(node: Node) -> frozenset[int]:
    rank = len(shape_of(node))
    return frozenset({arg(node, 1) % rank, arg(node, 2) % rank})


@dataclass(frozen=True)
class Noops(RulePass):
    """Remove dropout, copies, casts, views and arithmetic that change nothing."""

    name = "noops"

    def rules(self) -> Sequence[Rule]:
        # Pairs last: operators between the two halves are removed by then.
        return (ViewIsReshape(), SameValue(), CastChain(), TransposePair(), ViewChain())
