"""The axes of every value and weight of a program, tied where operators pair their positions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch.fx.node import Node

from strop.compiler.ir.nodes import arguments, expression, tensors_of
from strop.compiler.ir.printer import describe, op_name
from strop.compiler.ir.program import Program
from strop.passes.prune.dims import Dim, DoNotFit, Size, cut, freeze, leaf, slices, unify

Axes = list[Dim]
"""One structure for each axis of a tensor."""


@dataclass(frozen=True)
class Baked:
    """An argument of an operator that holds a size, which follows from axes.

    Attributes:
        node: the call.
        argument: its name in the operator's schema.
        dims: the axes from which it follows.
        value: its new value, from the new sizes of ``dims``.
    """

    node: Node
    argument: str
    dims: tuple[Dim, ...]
    value: Callable[[list[Size]], Any]


@dataclass(frozen=True)
class Read:
    """Where a weight is multiplied with a value along an axis: ``x`` along ``axis`` of it.

    Attributes:
        value: the node of ``x``.
        axis: of ``x``, counted from the end (-1 is the last).
        weight: the node of the weight.
        weight_axis: of the weight.
    """

    value: Node
    axis: int
    weight: Node
    weight_axis: int


@dataclass
class Dependencies:
    """What the analysis found.

    Attributes:
        program: that was looked at.
        values: axes of the tensors of every node, one list for each result.
        weights: axes of every weight, by name.
        baked: sizes among arguments.
        reads: products of values with weights.
    """

    program: Program
    values: dict[Node, list[Axes]] = field(default_factory=dict)
    weights: dict[str, Axes] = field(default_factory=dict)
    baked: list[Baked] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)


@dataclass(frozen=True)
class Call:
    """One operator call while its axes are found.

    Attributes:
        node: the call.
        given: its arguments by schema name, defaults filled in.
        found: what is known so far.
    """

    node: Node
    given: Mapping[str, Any]
    found: Dependencies

    @staticmethod
    def of(node: Node, found: Dependencies) -> Call:
        """The call of a node whose inputs' axes are known."""
        return Call(node, arguments(node), found)

    def axes(self, argument: Any) -> Axes:
        """The axes of a tensor argument, by name or as a node."""
        node = self.given[argument] if isinstance(argument, str) else argument
        return self.found.values[node][0]

    def tensors(self) -> list[Axes]:
        """The axes of every tensor that the call reads."""
        return [a for node in self.node.all_input_nodes for a in self.found.values.get(node, ())]

    def shapes(self) -> list[list[Size]]:
        """The shape of every result."""
        return [[expression(s) for s in t.shape] for t in tensors_of(self.node)]

    def shape(self) -> list[Size]:
        """The shape of the first result."""
        return self.shapes()[0]

    def tie(self, a: Dim, b: Dim) -> None:
        """Say that two axes are the same; where they do not fit, no position may be dropped."""
        try:
            unify(a, b)
        except DoNotFit:
            freeze(f"{self} pairs axes that are cut in different places", a, b)

    def cut(self, dim: Dim, sizes: Sequence[Size]) -> Axes:
        """The axes that counting through one axis gives."""
        return self._divided(cut, dim, sizes)

    def slices(self, dim: Dim, sizes: Sequence[Size]) -> Axes:
        """The parts of an axis, one after another."""
        return self._divided(slices, dim, sizes)

    def _divided(
        self, how: Callable[[Dim, Sequence[Size]], Axes], dim: Dim, sizes: Sequence[Size]
    ) -> Axes:
        try:
            return how(dim, sizes)
        except DoNotFit:
            made = fresh(sizes)
            freeze(f"{self} divides an axis across its structure", dim, *made)
            return made

    def freeze(self, why: str, dims: Iterable[Dim]) -> None:
        """Say why nothing may be dropped from these axes, because of this call."""
        freeze(f"{why}: {self}", *dims)

    def unknown(self) -> list[Axes]:
        """The results of an operator that the analysis does not know: all it touches is frozen."""
        results = [fresh(shape) for shape in self.shapes()]
        touched = [dim for axes in (*self.tensors(), *results) for dim in axes]
        freeze(f"the analysis does not know {op_name(self.node.target)}: {self}", *touched)
        return results

    def bake(self, argument: str, dims: Sequence[Dim], value: Callable[[list[Size]], Any]) -> None:
        """Say that an argument follows from the sizes of axes."""
        self.found.baked.append(Baked(self.node, argument, tuple(dims), value))

    def bake_sizes(self, argument: str, dims: Sequence[Dim]) -> None:
        """Say that an argument lists the sizes of these axes; -1 and sizes of dims stay."""
        old = self.given[argument]
        self.bake(argument, dims, lambda new: [_new_size(o, n) for o, n in zip(old, new)])

    def axis(self, argument: str, rank: int) -> int:
        """An argument that is an axis, from the front."""
        return int(self.given[argument]) % rank if rank else 0

    def __str__(self) -> str:
        return describe(self.node)


def _new_size(old: Any, new: Size) -> Any:
    return int(new) if isinstance(old, int) and old >= 0 else old


def axes_of(asked: Any, x: Axes) -> list[int]:
    """An axis, or a list of them, from the front."""
    several = [asked] if isinstance(asked, int) else asked
    return [int(axis) % len(x) for axis in several] if x else []


def fresh(shape: Sequence[Size]) -> Axes:
    """Axes of which nothing is known."""
    return [leaf(size) for size in shape]
