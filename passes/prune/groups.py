"""Groups: the slices of weights that can only be dropped together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from strop.passes.prune.axes import Dependencies
from strop.passes.prune.dims import Dim, leaves
from strop.passes.prune.places import places
from strop.passes.prune.roles import PLACES, kind_of


@dataclass(frozen=True)
class Slice:
    """One axis of a weight on which a group lies.

    Attributes:
        weight: its name.
        axis: of the weight.
        dim: the structure of the axis, which holds the group's leaf.
    """

    weight: str
    axis: int
    dim: Dim


@dataclass(frozen=True)
class Group:
    """Positions that exist on several weights, and on values between them.

    Attributes:
        name: kind and first weight, such as ``ffn:encoder.0.up``; unique within a program.
        kind: heads, queries, head-size, width, channels, ffn or other.
        leaf: the axis itself; ``leaf.size`` positions can be dropped.
        slices: every axis of a weight on which it lies.
    """

    name: str
    kind: str
    leaf: Dim
    slices: tuple[Slice, ...]

    @property
    def size(self) -> int:
        """How many positions there are."""
        return int(self.leaf.size)

    @property
    def frozen(self) -> tuple[str, ...]:
        """Why nothing may be dropped; empty where it may."""
        return tuple(self.leaf.frozen)

    def rows(self, weights: Mapping[str, Tensor]) -> list[Tensor]:
        """For each of ``slices``, the elements of its weight at each position: [size, elements]."""
        return [_rows(one, self.leaf, weights[one.weight]) for one in self.slices]

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.size} positions"]
        lines += [f"  frozen: {reason}" for reason in self.frozen]
        lines += [f"  {one.weight}, axis {one.axis}{_where(one, self.leaf)}" for one in self.slices]
        return "\n".join(lines)


def groups(found: Dependencies) -> list[Group]:
    """The groups of a program in program order, frozen ones too; those of one position left out.

    Axes of places, such as those of a kernel, are no groups.
    """
    members: dict[Dim, list[Slice]] = {}
    for weight, axes in found.weights.items():
        for axis, dim in enumerate(axes):
            for one in dict.fromkeys(leaves(dim)):
                members.setdefault(one, []).append(Slice(weight, axis, dim))
    made: list[Group] = []
    taken: set[str] = set()
    for leaf, slices in members.items():
        if not isinstance(leaf.size, int) or leaf.size < 2 or PLACES in leaf.roles:
            continue
        if not _learned(slices, found):
            continue
        kind = kind_of(leaf, _layers(leaf, slices, found))
        name = next(n for n in _names(f"{kind}:{_module(slices)}") if n not in taken)
        taken.add(name)
        made.append(Group(name, kind, leaf, tuple(slices)))
    return made


def _rows(one: Slice, leaf: Dim, weight: Tensor) -> Tensor:
    of = places(one.dim, leaf)
    order = of.argsort(stable=True)[int((of < 0).sum()) :]
    return weight.movedim(one.axis, 0)[order].reshape(int(leaf.size), -1)


def _learned(slices: list[Slice], found: Dependencies) -> bool:
    return any(isinstance(found.program.weights[s.weight], nn.Parameter) for s in slices)


def _layers(leaf: Dim, slices: list[Slice], found: Dependencies) -> int:
    """How often a leaf lies on the first axis of a matrix."""
    first = [s for s in slices if s.axis == 0 and found.program.weights[s.weight].dim() > 1]
    return sum(one is leaf for s in first for one in leaves(s.dim))


def _module(slices: list[Slice]) -> str:
    """The module of the first weight that gives the positions: its first axis."""
    first = next((one for one in slices if one.axis == 0), slices[0])
    return first.weight.rpartition(".")[0] or first.weight


def _names(name: str) -> Iterator[str]:
    yield name
    count = 2
    while True:
        yield f"{name}-{count}"
        count += 1


def _where(one: Slice, leaf: Dim) -> str:
    """How a leaf lies on an axis that holds more than it."""
    dim = one.dim.of
    if dim is leaf:
        return ""
    return f" [{_text(dim, leaf)}]"


def _text(dim: Dim, leaf: Dim) -> str:
    one = dim.of
    if one.kind == "leaf":
        return f"*{one.size}*" if one is leaf else str(one.size)
    if not one.parts:
        return "1"
    sign = " x " if one.kind == "product" else " + "
    return "(" + sign.join(_text(part, leaf) for part in one.parts) + ")"
