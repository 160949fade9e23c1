"""What a recipe makes without its passes that quantize, to compare the time with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from strop.compiler.driver.clock import after_steps
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.passes import Step
from strop.compiler.rewriting.recorder import StepRecord


@dataclass(frozen=True)
class InFloat:
    """The program that a recipe makes without the passes that quantize.

    Attributes:
        without: the names of the steps that were left out.
    """

    program: Program
    without: tuple[str, ...]


def in_float(
    captured: Program,
    steps: Sequence[Step],
    records: Sequence[StepRecord],
    programs: Sequence[Program],
) -> InFloat | None:
    """What the recipe makes without the steps that quantize; None where none did.

    Steps behind the first of them that learn are left out, too: they learned from what was
    quantized.

    Args:
        captured: the program before all steps.
        steps: of the recipe.
        records: what each step did.
        programs: the program after each step.
    """
    places = [i for i, step in enumerate(steps) if step.run.quantizes and records[i].modified]
    if not places:
        return None
    before = [captured, *programs][places[0]]
    rest = [step for step in steps[places[0] :] if not step.run.quantizes]
    return InFloat(after_steps(rest, before), tuple(steps[i].name for i in places))
