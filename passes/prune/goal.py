"""How much has to go so that a program has fewer parameters or operations, or takes less time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from strop.compiler.ir.cost import CostModel, traced_sizes
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Context
from strop.compiler.util.errors import UsageError
from strop.compiler.util.ranks import processes
from strop.passes.prune.axes import Dependencies
from strop.passes.prune.dependency import dependencies
from strop.passes.prune.dims import Dim, size_after
from strop.passes.prune.groups import Group, groups
from strop.passes.prune.shrink import shrink
from strop.passes.train.processes import Team

Counted = Literal["positions", "parameters", "multiply-adds", "latency"]
Choice = Mapping[str, list[int]]
"""What every group keeps, by name."""
Choose = Callable[[float], Choice]
"""What every group keeps if a share of its positions goes."""
Left = Callable[[Choice], float]
"""The share of what is counted that a choice leaves."""
# Halvings of the interval in which the share lies: fewer where each takes a measurement.
_STEPS, _MEASUREMENTS = 12, 6


@dataclass(frozen=True)
class Goal:
    """A share of something that the whole program should lose.

    Attributes:
        counted: "parameters"; "multiply-adds" at the sizes of the traced example; or "latency",
            the measured time of one run on the target.
        share: of it, that goes; above 0 and below 1.
    """

    counted: Counted
    share: float

    def reached_by(
        self, found: Dependencies, chosen: Sequence[Group], choose: Choose, context: Context
    ) -> Choice:
        """The choice that drops least and still reaches the goal.

        Args:
            found: the dependencies of the program.
            chosen: the groups that may lose positions.
            choose: what they keep.
            context: measures time, and is told of it.

        Raises:
            UsageError: it cannot be reached, whatever goes; or nothing measures time.
        """
        if self.counted == "positions":
            return choose(self.share)
        with self._left(found, chosen, context) as left:
            best, share = self._searched(_once(left), choose, len(chosen))
        if self.counted == "latency":
            context.say(
                f"pruning left {share:.0%} of the time of one run, as measured here; a measurement "
                "differs from run to run, and what is chosen by it may, too"
            )
        return best

    @contextmanager
    def _left(
        self, found: Dependencies, chosen: Sequence[Group], context: Context
    ) -> Iterator[Left]:
        if self.counted == "latency":
            with _timed(found.program, context) as left:
                yield left
        elif self.counted == "parameters":
            whole = parameters(found, {})
            yield lambda kept: parameters(found, {g.leaf: kept[g.name] for g in chosen}) / whole
        else:
            operations = _operations(found.program)
            yield lambda kept: _operations(_smaller(found.program, kept)) / operations

    def _searched(self, left: Left, choose: Choose, count: int) -> tuple[Choice, float]:
        """Halve the interval between shares that leave too much, and those that do not.

        Returns:
            The best choice, and the share that it leaves.
        """
        low, high = 0.0, 1.0 - 1e-9
        best = choose(high)
        reached = left(best)
        if reached > 1 - self.share:
            raise UsageError(
                f"{self.share:.0%} of the {self.counted} cannot go: with the fewest positions in "
                f"{count} groups, {reached:.0%} are left. Prune more kinds of groups, or less"
            )
        for _ in range(_MEASUREMENTS if self.counted == "latency" else _STEPS):
            middle = (low + high) / 2
            kept = choose(middle)
            if (share := left(kept)) <= 1 - self.share:
                high, best, reached = middle, kept, share
            else:
                low = middle
        return best, reached


def _once(left: Left) -> Left:
    """The same, which counts a choice once: several shares may round to it."""
    known: dict[tuple[int, ...], float] = {}

    def remembered(kept: Choice) -> float:
        sizes = tuple(map(len, kept.values()))
        if sizes not in known:
            known[sizes] = left(kept)
        return known[sizes]

    return remembered


@contextmanager
def _timed(program: Program, context: Context) -> Iterator[Left]:
    """Times choices, and tells what they took.

    Raises:
        UsageError: the context has no clock.
    """
    if context.clock is None:
        raise UsageError(
            "of=latency needs a target to measure on, which only a build has: "
            "Context(clock=...), or count parameters or multiply-adds"
        )
    team = Team(processes())
    with context.clock(program) as relative:

        def left(kept: Choice) -> float:
            # All processes choose by what the first one measures.
            share = team.from_first(relative(_smaller(program, kept)) if team.rank == 0 else 0.0)
            positions = sum(map(len, kept.values()))
            context.progress(f"pass prune: {positions} positions take {share:.0%} of the time")
            return share

        yield left


def parameters(found: Dependencies, kept: Mapping[Dim, Sequence[int]]) -> int:
    """Elements of all trained weights, if leaves keep these positions."""
    trained = found.program.parameters
    return sum(
        math.prod(int(size_after(dim, kept)) for dim in axes)
        for name, axes in found.weights.items()
        if name in trained
    )


def _smaller(program: Program, kept: Choice) -> Program:
    """A copy of the program whose groups keep these positions."""
    smaller = program.clone()
    found = dependencies(smaller)
    leaves = {g.leaf: kept[g.name] for g in groups(found) if g.name in kept}
    shrink(smaller, found, leaves, "prune")
    return smaller


def _operations(program: Program) -> int:
    """Multiply-adds at the traced sizes."""
    return CostModel(program).at(traced_sizes(program)).multiply_adds
