"""What a model loses and weighs at several widths of its weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from strop.compiler.ir.footprint import footprint
from strop.compiler.ir.program import Program
from strop.compiler.ir.running import Inputs, in_contract
from strop.compiler.rewriting.passes import Pipeline, Step, run_step
from strop.compiler.util.arrays import to_array
from strop.compiler.util.errors import UsageError
from strop.compiler.util.numerics import Array, Drift, drift
from strop.passes.quantize.weights import QuantizeWeights


@dataclass(frozen=True)
class Width:
    """One row of the table.

    Attributes:
        bits: of a weight.
        bytes: of all constants, as the target stores them.
        share: of those bytes, of what the float program takes.
        apart: how far outputs are from those of the float program.
    """

    bits: int
    bytes: int
    share: float
    apart: Drift


def widths(
    program: Program, pipeline: Pipeline, inputs: Inputs, bits: Sequence[int]
) -> Iterator[Width]:
    """Quantize a program at each width, one after another.

    Args:
        program: as captured.
        pipeline: with a step that quantizes weights; those before it are run.
        inputs: what outputs are compared on.
        bits: the widths; tables take them as well where the step quantizes tables.

    Raises:
        UsageError: no step of the pipeline quantizes weights, or a width is out of its range.
    """
    before, step = _quantizing(program, pipeline)
    whole, want = footprint(program).bytes, _outputs(program, inputs)
    for width in bits:
        held = step.run
        assert isinstance(held, QuantizeWeights)
        tables = width if held.embeddings else 0
        made = run_step(replace(step, run=replace(held, bits=width, embeddings=tables)), before)
        size = footprint(made.program).bytes
        yield Width(width, size, size / whole, drift(_outputs(made.program, inputs), want))


def _quantizing(program: Program, pipeline: Pipeline) -> tuple[Program, Step]:
    for step in pipeline.steps:
        if isinstance(step.run, QuantizeWeights):
            return program, step
        program = run_step(step, program).program
    raise UsageError("no step of the recipe quantizes weights alone; take --recipe cpu-int4")


def _outputs(program: Program, inputs: Inputs) -> dict[str, Array]:
    with torch.no_grad():
        values = program.run(**in_contract(inputs, program.contract))
    return {spec.name: to_array(v) for spec, v in zip(program.contract.outputs, values)}
