"""What is to be scored, and with what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from torch import Tensor

from strop.compiler.ir.interpreter import Watch, interpret
from strop.compiler.ir.program import Program
from strop.compiler.ir.running import refusing
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


def first_batches(context: Context, count: int, labelled: bool = False) -> Iterator[Batch]:
    """The first batches of the calibration data, or of the training data without it.

    Batches with labels are those of the training data.
    """
    calibration = None if labelled else context.calibration
    return islice(context.train or () if calibration is None else calibration, count)


def on_batch(
    program: Program,
    batch: Batch,
    watch: Watch = lambda node, value: None,
    weights: Mapping[str, Tensor] | None = None,
) -> tuple[Tensor, ...]:
    """The outputs of a program for a batch, which may hold more than its inputs.

    Args:
        program: to run.
        batch: by name.
        watch: called with every node and its value.
        weights: instead of the program's own.

    Raises:
        UsageError: it does not run on the batch.
    """
    given = {spec.name: batch[spec.name] for spec in program.contract.inputs}
    with refusing(program.contract, given):
        used = program.weights if weights is None else weights
        outputs: tuple[Tensor, ...] = interpret(program.graph, used, given.values(), watch)
    return outputs
