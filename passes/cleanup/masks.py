"""Causal and padding masks in one canonical form.

Model libraries compute masks from index grids: ``k <= q``, ``padding[b, k]``, joined by ``and``.
This pass recognizes what such a subgraph computes, and replaces it by the ``is_causal`` flag
and the padding mask itself, [batch, 1, 1, keys].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.families import CASTS, COPIES
from strop.compiler.ir.nodes import (
    arg,
    arguments,
    dtype_of,
    input_node,
    same_shape,
    same_size,
    shape_of,
    static_int,
)
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.passes import Pass
from strop.compiler.rewriting.pattern import NEAR, Miss
from strop.compiler.rewriting.rules import Log

aten = torch.ops.aten
# Dtypes that hold the indices 0, 1, 2, ... exactly.
_COUNTING = (torch.int32, torch.int64, torch.float32, torch.float64)


@dataclass(frozen=True)
class Grid:
    """A tensor whose elements are the index along one axis (counted from the right)."""

    axis: int


@dataclass(frozen=True)
class Causal:
    """True where key <= query."""


@dataclass(frozen=True)
class Padding:
    """True where ``mask[batch, key]``; the mask is a bool [batch, keys] value."""

    mask: Node


Atom = Causal | Padding
Meaning = Grid | frozenset[Atom] | None
"""What a value computes: a grid; for a bool tensor, the set of atoms whose conjunction it is.

The empty set (``TRUE``) is true everywhere; None is a value that is not recognized.
"""
TRUE: frozenset[Atom] = frozenset()
CAUSAL: frozenset[Atom] = frozenset({Causal()})


class Reader:
    """Reads mask subgraphs; every node is read once."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.read: dict[Node, Meaning] = {}

    def meaning(self, value: Any) -> Meaning:
        """What a value computes; None if it is not recognized."""
        if not isinstance(value, Node):
            return None
        if value not in self.read:
            self.read[value] = self._of(value)
        return self.read[value]

    def _of(self, node: Node) -> Meaning:
        if node.op == "get_attr":
            return self._of_constant(node)
        reader = READERS.get(node.target)
        return reader(self, node) if reader else None

    def _of_constant(self, node: Node) -> Meaning:
        weight = self.program.weights[str(node.target)]
        if weight.dtype == torch.bool and bool(weight.all()):
            return TRUE
        a_row = weight.dim() and weight.shape[-1] == weight.numel() > 1
        if a_row and weight.dtype == torch.int64:
            counts_up = torch.equal(weight.flatten(), torch.arange(weight.numel()))
            return Grid(-1) if counts_up else None
        return None


def _arange(reader: Reader, node: Node) -> Meaning:
    return Grid(-1)


def _same(reader: Reader, node: Node) -> Meaning:
    return reader.meaning(node.args[0])


def _unsqueeze(reader: Reader, node: Node) -> Meaning:
    inner, rank = reader.meaning(node.args[0]), len(shape_of(node))
    dim = int(arg(node, 1)) % rank - rank
    if isinstance(inner, Grid):
        return Grid(inner.axis - 1) if dim > inner.axis - 1 else inner
    if inner == TRUE or (inner == CAUSAL and dim < -2):
        return inner
    return None


def _slice(reader: Reader, node: Node) -> Meaning:
    values = arguments(node)
    inner = reader.meaning(values["self"])
    from_start = values["start"] in (None, 0) and values["step"] == 1
    # A sliced padding mask would no longer be the whole source mask.
    short = isinstance(inner, Grid) or inner in (TRUE, CAUSAL)
    return inner if from_start and short else None


def _expand(reader: Reader, node: Node) -> Meaning:
    source = input_node(node)
    meaning = reader.meaning(source)
    return meaning if _unrepeated(source, node, meaning) else None


def _unrepeated(part: Node, whole: Node, meaning: Meaning) -> bool:
    """Whether broadcasting repeats none of the axes that the meaning refers to."""
    axes: tuple[int, ...] = ()
    if isinstance(meaning, Grid):
        axes = (meaning.axis,)
    elif meaning is not None and Causal() in meaning:
        axes = (-2, -1)
    return all(same_size(shape_of(part)[a], shape_of(whole)[a]) for a in axes)


def _add(reader: Reader, node: Node) -> Meaning:
    return reader.meaning(node.args[0]) if static_int(node.args[1]) == 0 else None


def _cast(reader: Reader, node: Node) -> Meaning:
    inner = reader.meaning(node.args[0])
    wanted = _COUNTING if isinstance(inner, Grid) else (torch.bool,)
    return inner if dtype_of(node) in wanted else None


def _compare(less_or_equal: bool) -> Callable[[Reader, Node], Meaning]:
    """``le(keys, queries)`` or ``ge(queries, keys)``."""

    def read(reader: Reader, node: Node) -> Meaning:
        keys, queries = node.args[:2] if less_or_equal else node.args[1::-1]
        for index, grid in ((keys, Grid(-1)), (queries, Grid(-2))):
            if reader.meaning(index) != grid or not _unrepeated(index, node, grid):  # type: ignore[arg-type]
                return None
        return CAUSAL

    return read


def _compare_with_number(highest: int) -> Callable[[Reader, Node], Meaning]:
    """``ge(grid, 0)`` and ``gt(grid, -1)`` are always true."""

    def read(reader: Reader, node: Node) -> Meaning:
        number = node.args[1]
        below = isinstance(number, int) and number <= highest
        return TRUE if below and isinstance(reader.meaning(node.args[0]), Grid) else None

    return read


def _and(reader: Reader, node: Node) -> Meaning:
    total: frozenset[Atom] = TRUE
    for part in node.args:
        meaning = reader.meaning(part)
        if not isinstance(meaning, frozenset) or not _unrepeated(part, node, meaning):  # type: ignore[arg-type]
            return None
        total |= meaning
    return total


def _ones(reader: Reader, node: Node) -> Meaning:
    return TRUE if dtype_of(node) == torch.bool else None


def _index(reader: Reader, node: Node) -> Meaning:
    """``padding[batch_grid, key_grid]`` with a bool [batch, keys] padding."""
    source, indices = input_node(node), arg(node, 1)
    grids = [Grid(-4), Grid(-1)]
    read = [reader.meaning(index) for index in indices]
    if dtype_of(source) != torch.bool or len(shape_of(node)) != 4 or read != grids:
        return None
    ends = (shape_of(node)[0], shape_of(node)[-1])
    alone = all(_unrepeated(index, node, grid) for index, grid in zip(indices, grids))
    return frozenset({Padding(source)}) if alone and same_shape(ends, shape_of(source)) else None


READERS: dict[Any, Callable[[Reader, Node], Meaning]] = {
    aten.arange.default: _arange,
    aten.unsqueeze.default: _unsqueeze,
    aten.slice.Tensor: _slice,
    aten.add.Tensor: _add,
    aten.le.Tensor: _compare(True),
    aten.ge.Tensor: _compare(False),
    aten.ge.Scalar: _compare_with_number(0),
    aten.gt.Scalar: _compare_with_number(-1),
    aten.bitwise_and.Tensor: _and,
    aten.logical_and.default: _and,
    aten.__and__.Tensor: _and,
    aten.new_ones.default: _ones,
    aten.ones.default: _ones,
    aten.index.Tensor: _index,
    aten.expand.default: _expand,
    **dict.fromkeys(COPIES, _same),
    **dict.fromkeys(CASTS, _cast),
}


@dataclass(frozen=True)
class CanonicalMasks(Pass):
    """Turn computed attention masks into the causal flag and the padding mask."""

    name = "masks"

    def apply(self, program: Program, log: Log) -> None:
        reader = Reader(program)
        masks: dict[Node, Node] = {}
        for root in program.find(aten.scaled_dot_product_attention.default):
            mask = arguments(root)["attn_mask"]
            if mask is None or mask.target is torch.ops.strop.cache_mask.default:
                continue  # Nothing to read: it is canonical.
            meaning = reader.meaning(mask)
            if not isinstance(meaning, frozenset):
                log.missed("masks", root, Miss("the mask is not causal-and-padding", mask, NEAR))
            elif len(meaning) > 1 and Causal() in meaning and not _one_size(root):
                # With both a mask and the flag, torch runs only what its fused kernel takes.
                reason = "queries, keys and values differ in batch, heads or size of heads"
                log.missed("masks", root, Miss(reason, mask, NEAR))
            elif Causal() in meaning and not _square(root, mask):
                reason = "causal, but the numbers of queries and keys differ"
                log.missed("masks", root, Miss(reason, mask, NEAR))
            else:
                _rewrite(program, root, mask, meaning, masks)
                log.rewrote("masks", root)


def _one_size(root: Node) -> bool:
    """Whether queries, keys and values agree in batch, number and size of heads."""
    queries, keys, values = (shape_of(arg(root, i)) for i in range(3))
    if not same_size(queries[-1], values[-1]):
        return False
    shared = slice(0, -3 if arguments(root)["enable_gqa"] else -2)
    return all(same_shape(other[shared], queries[shared]) for other in (keys, values))


def _square(root: Node, mask: Node) -> bool:
    queries, keys = shape_of(arg(root, 0))[-2], shape_of(arg(root, 1))[-2]
    return same_size(queries, keys) and same_shape(shape_of(mask)[-2:], (queries, keys))


def _rewrite(
    program: Program, root: Node, mask: Node, meaning: frozenset[Atom], made: dict[Node, Node]
) -> None:
    build = Builder(program, root, "masks")
    paddings = [a.mask for a in meaning if isinstance(a, Padding)]
    padding = None
    for one in paddings:
        if one not in made:
            # Before every attention that shares it, so right after the value itself.
            first = Builder(program, one.next, "masks")
            made[one] = first.call(
                aten.unsqueeze.default, first.call(aten.unsqueeze.default, one, 1), 1
            )
        padding = (
            made[one]
            if padding is None
            else build.call(aten.logical_and.default, padding, made[one])
        )
    values = arguments(root)
    values["attn_mask"] = padding
    values["is_causal"] = values["is_causal"] or Causal() in meaning
    plain = {k: v for k, v in values.items() if k in ("scale", "enable_gqa")}
    positional = [v for k, v in values.items() if k not in plain]
    new = build.call(root.target, *positional, **plain)
    root.replace_all_uses_with(new)
    program.erase_dead([root, mask])
