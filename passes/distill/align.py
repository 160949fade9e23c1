"""Which values of a student and its teacher stand for the same thing, and how they are compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import torch
from torch.fx.node import Node

from strop.compiler.ir.nodes import input_node, shape_of, static_int
from strop.compiler.ir.printer import describe
from strop.compiler.ir.program import Program
from strop.compiler.util.errors import UsageError, nearest
from strop.passes.distill.taps import tappable

AUTO = "auto"
_ATTENTION = torch.ops.aten.scaled_dot_product_attention.default
Kept = Mapping[str, Mapping[int, torch.Tensor]]
"""By value and axis, the original index of each position that pruning has left, int64."""


@dataclass(frozen=True)
class Pair:
    """A value of the student and the one of the teacher with which it is compared.

    Attributes:
        student: name of the student's value.
        teacher: name of the teacher's.
        kept: by axis, which positions of the teacher's value the student still has.
        axis: along which a projection makes one comparable with the other; None needs none.
        sizes: of the two along that axis.
    """

    student: str
    teacher: str
    kept: Mapping[int, torch.Tensor] = field(default_factory=dict)
    axis: int | None = None
    sizes: tuple[int, int] = (0, 0)

    def of_teacher(self, value: torch.Tensor) -> torch.Tensor:
        """What the student has left of the teacher's value."""
        for axis, index in self.kept.items():
            value = value.index_select(axis, index)
        return value


def align(
    student: Program, teacher: Program, wanted: Sequence[str], kept: Kept | None = None
) -> list[Pair]:
    """Pairs of values to compare, in the student's order.

    Args:
        student: made from the teacher by passes, or another program of the same inputs.
        teacher: whose values are learned.
        wanted: each "auto" (the results of repeated blocks, such as ``encoder.layer.3``, but for
            outputs), a pattern of names of values or paths of modules (whose last value is meant),
            or ``STUDENT=TEACHER`` with two of these that match one value each.
        kept: what pruning has left of the student's values.

    Raises:
        UsageError: a pattern matches nothing that both have, or two values cannot be compared.
    """
    known = {} if kept is None else kept
    places = (_Places(student), _Places(teacher))
    found: dict[str, Pair] = {}
    for pattern in wanted:
        pairs = list(_pairs(pattern, *places, known))
        if not pairs and pattern != AUTO:
            near = nearest(pattern, _shared(*places))
            raise UsageError(f"tap '{pattern}' is no value that student and teacher share{near}")
        found |= {pair.student: pair for pair in pairs}
    order = [node.name for node in tappable(student) if node.name in found]
    return [found[name] for name in order]


def attention_pairs(student: Program, teacher: Program) -> list[Pair]:
    """Queries, keys and values of each attention that both have, three pairs for each.

    Their numbers of heads and features may differ: what is compared are relations between places.
    """
    theirs = teacher.find(_ATTENTION)
    return [
        Pair(input_node(node, i).name, input_node(other, i).name)
        for node in student.find(_ATTENTION)
        for other in _of_same_module(node, theirs)
        for i in range(3)
    ]


def _of_same_module(node: Node, others: Sequence[Node]) -> Sequence[Node]:
    """Which of several values one of another program stands for: one, or none if it is unclear.

    A module that gives several is asked for the one of the same name.
    """
    alike = [other for other in others if _paths(other) == _paths(node)]
    named = [other for other in alike if other.name == node.name]
    return named or (alike if len(alike) == 1 else [])


class _Places:
    """The values of a program by their names, and by the modules that give them."""

    def __init__(self, program: Program) -> None:
        nodes = tappable(program)
        self.values = {node.name: node for node in nodes}
        self.modules: dict[str, Node] = {}
        self.blocks: dict[str, Node] = {}
        for node in nodes:
            paths = _paths(node)
            for path in paths:
                self.modules[path] = node
            block = next((p for p in paths if p.rpartition(".")[2].isdigit()), None)
            if block is not None:
                self.blocks[block] = node
        # What is an output is compared already.
        self.blocks = {b: n for b, n in self.blocks.items() if n not in program.outputs}

    def matching(self, pattern: str) -> dict[str, Node]:
        """By name or path, the values that a pattern means."""
        everything = self.modules | self.values
        return {name: n for name, n in everything.items() if fnmatchcase(name, pattern)}

    def one(self, name: str) -> Node | None:
        """The value of a name, or the last one of a module."""
        return self.values.get(name) or self.modules.get(name)


def _paths(node: Node) -> list[str]:
    """Paths of the modules around a node, from the outermost one."""
    return [str(path) for path, _ in (node.meta.get("nn_module_stack") or {}).values()]


def _pairs(pattern: str, student: _Places, teacher: _Places, kept: Kept) -> Iterator[Pair]:
    name, explicit, other = pattern.partition("=")
    if explicit:
        ours, theirs = student.one(name), teacher.one(other)
        if ours is not None and theirs is not None:
            yield _pair(ours, theirs, kept)
        return
    chosen = student.blocks if pattern == AUTO else student.matching(pattern)
    for place, node in chosen.items():
        counterpart = _counterpart(place, node, teacher)
        if counterpart is not None and (pattern != AUTO or _comparable(node, counterpart, kept)):
            yield _pair(node, counterpart, kept)


def _counterpart(place: str, node: Node, teacher: _Places) -> Node | None:
    """The teacher's value for one of the student's, which a name or the path of a module chose.

    A value keeps its name from pass to pass; one that a pass made again has its module only. In
    another model the same name, a number such as ``relu_3``, may be that of another module's value.
    """
    named = teacher.values.get(node.name)
    if named is not None and place in (node.name, *_paths(named)):
        return named
    return teacher.modules.get(place)


def _pair(ours: Node, theirs: Node, kept: Kept) -> Pair:
    """How two values are compared.

    Raises:
        UsageError: they cannot be.
    """
    index = kept.get(ours.name, {})
    ranks = [len(shape_of(node)) for node in (ours, theirs)]
    if ranks[0] != ranks[1]:
        raise UsageError(
            f"{describe(ours)} of the student has {ranks[0]} axes, {describe(theirs)} of the "
            f"teacher {ranks[1]}: they cannot be compared"
        )
    other = [axis for axis in _differing(ours, theirs) if axis not in index]
    if not other:
        return Pair(ours.name, theirs.name, index)
    ours_has, theirs_has = (static_int(shape_of(n)[other[0]]) for n in (ours, theirs))
    if len(other) > 1 or ours_has is None or theirs_has is None:
        raise UsageError(
            f"{describe(ours)} of the student and {describe(theirs)} of the teacher differ in more "
            "than one number of features: they cannot be compared"
        )
    return Pair(ours.name, theirs.name, index, other[0], (ours_has, theirs_has))


def _comparable(ours: Node, theirs: Node, kept: Kept) -> bool:
    """Whether two values can be compared as they are, or by what pruning has left."""
    same_rank = len(shape_of(ours)) == len(shape_of(theirs))
    return same_rank and set(_differing(ours, theirs)) <= set(kept.get(ours.name, ()))


def _differing(ours: Node, theirs: Node) -> list[int]:
    """Axes along which two values have other numbers of features; dynamic sizes count as equal."""
    sizes = zip(map(static_int, shape_of(ours)), map(static_int, shape_of(theirs)))
    return [axis for axis, (a, b) in enumerate(sizes) if a != b]


def _shared(student: _Places, teacher: _Places) -> list[str]:
    """The names of values and modules that both have."""
    return [name for name in student.modules | student.values if teacher.one(name) is not None]
