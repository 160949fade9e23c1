"""Find the step after which a file differs from the original; run once a file misses its budget.

By then the weights are gone, to save memory. The model is made once more, and the program as
captured and after each pass is run on the case that missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from strop.compiler.check.comparison import check_program, compare
from strop.compiler.check.limits import missed_by
from strop.compiler.driver.departure import NOISE_DB, departure
from strop.compiler.driver.informed import informed
from strop.compiler.frontend.cases import Case
from strop.compiler.frontend.data import context_of
from strop.compiler.frontend.export.capture import capture
from strop.compiler.frontend.inputs import Signature, read_inputs
from strop.compiler.frontend.model import Model
from strop.compiler.frontend.original import run_original
from strop.compiler.ir.program import Program
from strop.compiler.recipes.budget import Budget
from strop.compiler.recipes.recipe import Recipe
from strop.compiler.rewriting.passes import Pipeline, run_step
from strop.compiler.targets.target import Target
from strop.compiler.util.arrays import to_array
from strop.compiler.util.errors import StropError
from strop.compiler.util.user_code import held_to_return

Again = Callable[[], Model | None]
"""Makes the model of a build once more; gives None where nobody holds it any more."""
UNKNOWN = "a pass, the lowering or the runtime; `strop debug bisect` says which"
NOT_THE_SAME = (
    "a pass, the lowering or the runtime; which one cannot be found out, since the model gives "
    "other numbers when it is made once more: set a seed for what is random in it"
)
# For a file with a small error: the first value that is off by more than rounding.
_FINE_DB = 60.0


def suspect_by(find: Callable[[], str]) -> str:
    """What a search for the step to blame found, in words; where the search fails, why it did.

    The user's code runs again in a search, and may fail there. The file has missed its budget all
    the same: that is what the build ends with.
    """
    try:
        with held_to_return():
            return find()
    except Exception as error:  # of whatever kind: the miss is told, and the failure with it
        why = str(error) if isinstance(error, StropError) else f"{type(error).__name__}: {error}"
        lines = " ".join(line.strip() for line in why.splitlines())
        return f"{UNKNOWN}. Looking for the step failed: {lines}"


def find_suspect(again: Again, recipe: Recipe, target: Target, case: Case, name: str = "") -> str:
    """The first step after which a case misses the budget, in words for the refusal.

    Args:
        again: the model of the build.
        recipe: its recipe, with the budget.
        target: what it was lowered for.
        case: what the file was too far off in.
        name: of the program, where the build has several.
    """
    model = again()
    if model is None:
        return UNKNOWN
    with torch.no_grad():
        signature, example, _ = read_inputs(model)
        if not _gives_the_same(model, signature, case, recipe.budget):
            return NOT_THE_SAME
        pipeline = recipe.pipeline().within(context_of(model, target))
        captured = capture(model.module, signature, example)
        del model
        told = informed(pipeline, captured, example, target, name=name)
        return _first_to_miss(captured, told, recipe, target, case)


def _gives_the_same(model: Model, signature: Signature, case: Case, budget: Budget) -> bool:
    """Whether the model made once more is the one that the case was made with."""
    outputs = run_original(model.module, signature, case.inputs)
    found = compare(case, {name: to_array(tensor) for name, tensor in outputs.items()})
    return not missed_by(found, budget)


def _first_to_miss(
    captured: Program, pipeline: Pipeline, recipe: Recipe, target: Target, case: Case
) -> str:
    program = captured
    for name, program in after_each_change(captured, pipeline):
        if _misses(program, case, recipe.budget):
            return name
    return departing_value(program, target, case)


def after_each_change(captured: Program, pipeline: Pipeline) -> Iterator[tuple[str, Program]]:
    """The program as captured and after each pass that changed it, with the suspect's name."""
    yield "capture", captured
    for step in pipeline.steps:
        result = run_step(step, captured)
        captured = result.program
        if result.modified:
            yield f"pass '{step.name}'", captured


def _misses(program: Program, case: Case, budget: Budget) -> bool:
    try:
        return bool(missed_by(check_program(program, [case]), budget))
    except Exception:  # whatever a wrong graph raises when it runs, at these sizes
        return True


def departing_value(program: Program, target: Target, case: Case) -> str:
    """The operator at which the file departs from the optimized program, where no pass is to blame.

    Args:
        program: after all passes.
        target: what it was lowered for.
        case: what both are run on.
    """
    for noise_db in (NOISE_DB, _FINE_DB):
        found = departure(program, case.inputs, target, noise_db)
        if found is not None:
            return f"{found.suspect}, first at {found.moved}"
    return "the lowering or the runtime, by differences that are small everywhere and add up"
