"""How much has to go so that a program has fewer parameters, or fewer operations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from strop.compiler.ir.cost import CostModel
from strop.compiler.ir.program import Program
from strop.compiler.util.errors import UsageError
from strop.passes.prune.axes import Dependencies
from strop.passes.prune.dependency import dependencies
from strop.passes.prune.dims import Dim, size_after
from strop.passes.prune.groups import Group, groups
from strop.passes.prune.shrink import shrink

Counted = Literal["positions", "parameters", "multiply-adds"]
Choose = Callable[[float], Mapping[str, list[int]]]
"""What every group keeps, by name, if a share of its positions goes."""
# Halvings of the interval in which the share lies.
_STEPS = 12


@dataclass(frozen=True)
class Goal:
    """A share of something that the whole program should lose.

    Attributes:
        counted: "parameters", or "multiply-adds" at the sizes of the traced example.
        share: of it, that goes; above 0 and below 1.
    """

    counted: Counted
    share: float

    def reached_by(
        self, program: Program, found: Dependencies, chosen: Sequence[Group], choose: Choose
    ) -> Mapping[str, list[int]]:
        """The choice that drops least and still reaches the goal.

        Raises:
            UsageError: it cannot be reached, whatever goes.
        """
        if self.counted == "positions":
            return choose(self.share)

        def count(kept: Mapping[str, list[int]]) -> int:
            if self.counted == "parameters":
                return parameters(found, {g.leaf: kept[g.name] for g in chosen if g.name in kept})
            return _operations(program, kept)

        whole = count({})

        def left(share: float) -> float:
            return count(choose(share)) / whole

        low, high = 0.0, 1.0 - 1e-9
        if (least := left(high)) > 1 - self.share:
            raise UsageError(
                f"{self.share:.0%} of the {self.counted} cannot go: with the fewest positions in "
                f"{len(chosen)} groups, {least:.0%} are left. Prune more kinds of groups, or less"
            )
        for _ in range(_STEPS):
            middle = (low + high) / 2
            low, high = (low, middle) if left(middle) <= 1 - self.share else (middle, high)
        return choose(high)


def parameters(found: Dependencies, kept: Mapping[Dim, Sequence[int]]) -> int:
    """Elements of all trained weights, if leaves keep these positions."""
    trained = found.program.parameters
    return sum(
        math.prod(int(size_after(dim, kept)) for dim in axes)
        for name, axes in found.weights.items()
        if name in trained
    )


def _operations(program: Program, kept: Mapping[str, list[int]]) -> int:
    """Multiply-adds at the traced sizes, if groups keep these positions."""
    smaller = program.clone()
    found = dependencies(smaller)
    leaves = {g.leaf: kept[g.name] for g in groups(found) if g.name in kept}
    shrink(smaller, found, leaves, "prune")
    return CostModel(smaller).at(traced_sizes(program)).multiply_adds


def traced_sizes(program: Program) -> dict[str, int]:
    """The sizes of the named dims in the example that was captured."""
    sizes = {}
    for node in program.graph.find_nodes(op="placeholder"):
        for size in node.meta["val"].shape:
            name = program.symbols.get(str(size))
            if isinstance(size, torch.SymInt) and name is not None:
                sizes[name] = int(size.node.hint)
    return sizes
