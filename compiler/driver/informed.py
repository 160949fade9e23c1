"""What passes are told of the model once it is captured."""

from __future__ import annotations

from functools import cache, partial

from strop.compiler.driver.clock import TargetClock
from strop.compiler.frontend.teacher import capture_teacher
from strop.compiler.ir.program import Program
from strop.compiler.ir.running import Inputs
from strop.compiler.lower.choices import Choices
from strop.compiler.rewriting.passes import Pipeline
from strop.compiler.targets.target import Target


def informed(
    pipeline: Pipeline,
    program: Program,
    inputs: Inputs,
    target: Target,
    choices: Choices | None = None,
    name: str = "",
) -> Pipeline:
    """The same steps, which see the program as captured, and can time others and capture models.

    Args:
        pipeline: with what the user gave for passes.
        program: as captured.
        inputs: of the user's; programs are timed on them, and models captured.
        target: where the program will run.
        choices: of its lowering.
        name: of the program, where a build has several: of a teacher's it is taught by that one.
    """
    clock = TargetClock(target, inputs, choices)
    capture = cache(partial(capture_teacher, contract=program.contract, example=inputs, name=name))
    return pipeline.taught_by(program, capture).timed_by(clock.against)
