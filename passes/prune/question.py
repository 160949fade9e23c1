"""What is to be scored, and with what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from strop.compiler.ir.program import Program
from strop.compiler.rewriting.batches import first_batches
from strop.compiler.rewriting.context import Batch, Context
from strop.passes.prune.axes import Dependencies
from strop.passes.prune.groups import Group


@dataclass(frozen=True)
class Question:
    """What is to be scored, and with what.

    Attributes:
        program: whose groups these are.
        found: its dependencies.
        groups: to score.
        context: data, loss and seed.
        batches: how many batches of the data to look at.
    """

    program: Program
    found: Dependencies
    groups: Sequence[Group]
    context: Context
    batches: int

    def data(self, labelled: bool = False) -> Iterator[Batch]:
        """The first batches of the data; those with labels are of the training data."""
        return first_batches(self.context, self.batches, labelled)
