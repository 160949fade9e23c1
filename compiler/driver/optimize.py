"""Run the passes of a recipe, and check that the outputs stay the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from strop.compiler.artifact.report.graph import Line, graph_view
from strop.compiler.check.comparison import Comparison, check_program
from strop.compiler.check.limits import hold_to_budget, hold_to_expectations, missed_by
from strop.compiler.check.pass_errors import measure_passes
from strop.compiler.check.rounding import with_rounding
from strop.compiler.driver.bundle import write_bundle
from strop.compiler.driver.unquantized import InFloat, in_float
from strop.compiler.frontend.cases import Case
from strop.compiler.frontend.prepare import Captured
from strop.compiler.ir.program import Program
from strop.compiler.ir.stale import verify_types
from strop.compiler.recipes.recipe import Recipe
from strop.compiler.rewriting.dump import Dump
from strop.compiler.rewriting.passes import Instrument, Pipeline, RulePass, Step, is_strops
from strop.compiler.rewriting.recorder import Recorder, StepRecord
from strop.compiler.util.collector import collector_paused
from strop.compiler.util.errors import BudgetError, StropError, UsageError
from strop.compiler.util.stages import Stages

Instruments = Literal["off", "cheap", "full"]
"""How much is measured after every pass: nothing, outputs on one small case, or on all cases."""


@dataclass(frozen=True)
class Optimized:
    """What the passes made.

    Attributes:
        program: ready to be lowered.
        records: what each step did.
        graphs: the program before and after, as the report shows it.
        in_float: what the recipe makes without the passes that quantize; None where none did.
    """

    program: Program
    records: Sequence[StepRecord]
    graphs: tuple[list[Line], list[Line]]
    in_float: InFloat | None


def optimize(
    captured: Captured,
    pipeline: Pipeline,
    recipe: Recipe,
    out: Path,
    dump: Dump | None,
    instruments: Instruments,
    stages: Stages,
) -> Optimized:
    """Run the passes and check them; ``captured`` keeps its cases and gives up its program.

    Args:
        captured: the model as captured.
        pipeline: the recipe's passes, with the context that they see.
        recipe: the budget and the expectations.
        out: where the artifact will stand; a crash bundle goes beside it.
        dump: writes the program after every pass.
        instruments: what to measure after every pass.
        stages: the clock.

    Raises:
        UsageError: a user's own pass failed; a crash bundle lies beside ``out``.
        BudgetError: the program is too far from the original, or a pass missed its expectation.
    """
    recorder = _run_passes(captured, pipeline, recipe, out, dump, stages)
    captured.cases = with_rounding(captured.cases, [captured.program, *recorder.programs])
    _check_passes(captured, recorder, pipeline, recipe, instruments, stages)
    before, after = captured.program, [captured.program, *recorder.programs][-1]
    with stages.stage("passes in float"), collector_paused():
        compared = in_float(before, pipeline.steps, recorder.records, recorder.programs)
    captured.program = after
    return Optimized(after, recorder.records, (graph_view(before), graph_view(after)), compared)


def _run_passes(
    captured: Captured,
    pipeline: Pipeline,
    recipe: Recipe,
    out: Path,
    dump: Dump | None,
    stages: Stages,
) -> Recorder:
    """Run the pipeline; if a pass fails, write a crash bundle that reproduces it."""
    recorder = Recorder(announce=lambda name: stages.progress(f"pass {name}"))
    others: list[Instrument] = [] if dump is None else [dump]
    try:
        with stages.stage("passes"), collector_paused():
            pipeline.run(captured.program, [recorder, *others])
    except Exception as error:
        if recorder.running is not None and not _is_users(error, recorder.running[0]):
            write_bundle(error, recorder.running, captured.probe.inputs, recipe, out)
        raise
    return recorder


def _is_users(error: Exception, step: Step) -> bool:
    """Whether an error is about what the user gave to a pass of strop's: data, or a budget."""
    return isinstance(error, (UsageError, BudgetError)) and is_strops(step.run)


def _check_passes(
    captured: Captured,
    recorder: Recorder,
    pipeline: Pipeline,
    recipe: Recipe,
    instruments: Instruments,
    stages: Stages,
) -> None:
    """Check the expected counts of rewrites, and compare the program with the original.

    Where the optimized program misses the budget, the step after which it does is named.
    """
    steps = pipeline.steps
    rules = {r.name for s in steps if isinstance(s.run, RulePass) for r in s.run.rules()}
    hold_to_expectations(recorder.records, recipe.expect, rules)
    smallest = min(captured.cases, key=lambda c: sum(t.numel() for t in c.inputs.values()))
    # The user's own data, and the sizes at which shapes degenerate: two runs, not all.
    cases = list({case.name: case for case in (captured.cases[0], smallest)}.values())
    programs = [captured.program, *recorder.programs]
    with stages.stage("check passes"):
        try:
            results = _run_typed(programs[-1], cases)
        except Exception:  # whatever a wrong graph raises when it runs
            _blame(captured.program, steps, recorder.programs, cases)
            raise
        if missed_by(results, recipe.budget):
            suspects = ["capture", *(f"pass '{r.name}'" for r in recorder.records)]
            for suspect, program in zip(suspects, programs):
                hold_to_budget(check_program(program, cases), recipe.budget, suspect)
    if instruments != "off":
        with stages.stage("measure passes"):
            chosen = [captured.probe] if instruments == "cheap" else captured.cases
            measure_passes(captured.program, recorder, chosen)


def _run_typed(program: Program, cases: Sequence[Case]) -> list[Comparison]:
    """Run a program, after comparing its recorded types with those that its operators give."""
    verify_types(program)
    return check_program(program, cases)


def _blame(
    captured: Program, steps: Sequence[Step], programs: Sequence[Program], cases: Sequence[Case]
) -> None:
    """Find the first step after which the program is wrong or does not run.

    Raises:
        UsageError: it is a user's own.
        Exception: what is wrong, where the step is strop's, with its name in a note.
    """
    try:
        _run_typed(captured, cases)
    except Exception as error:
        error.add_note("as captured, before any pass")
        raise
    for step, program in zip(steps, programs):
        try:
            _run_typed(program, cases)
        except Exception as error:
            if is_strops(step.run):
                error.add_note(f"after pass '{step.name}'")
                raise
            said = str(error) if isinstance(error, StropError) else f"it does not run: {error}"
            raise UsageError(f"pass '{step.name}' broke the program: {said}") from error
