"""Run programs on the user's batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice

from torch import Tensor

from strop.compiler.ir.interpreter import Watch, interpret
from strop.compiler.ir.program import Program
from strop.compiler.ir.running import in_contract, refusing
from strop.compiler.rewriting.context import Batch, Context


def first_batches(context: Context, count: int, labelled: bool = False) -> Iterator[Batch]:
    """The first batches of the calibration data, or of the training data without it.

    Batches with labels are those of the training data.
    """
    calibration = None if labelled else context.calibration
    return islice(context.train or () if calibration is None else calibration, count)


def on_batch(
    program: Program,
    batch: Batch,
    *,
    watch: Watch | None = None,
    weights: Mapping[str, Tensor] | None = None,
    segments: int = 0,
) -> tuple[Tensor, ...]:
    """The outputs of a program for a batch, which may hold more than its inputs.

    Args:
        program: to run.
        batch: by name.
        watch: called with every node and its value; not with ``segments``.
        weights: instead of the program's own.
        segments: of the program, inside of which gradients compute the values again; 0 keeps all.

    Raises:
        UsageError: it does not run on the batch.
    """
    given = {spec.name: batch[spec.name] for spec in program.contract.inputs}
    inputs = in_contract(given, program.contract)
    used = program if weights is None else replace(program, weights=dict(weights))
    with refusing(program.contract, given):
        if segments:
            return used.run_in_segments(segments, **inputs)
        if watch is None:
            return used.run(**inputs)
        return tuple(interpret(used.graph, used.weights, inputs.values(), watch))
