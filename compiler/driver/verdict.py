"""Compare the written file with the original, and check it against the budget of the recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from strop.compiler.check.comparison import Comparison, check_session, feeds_of
from strop.compiler.check.limits import hold_to_budget, missed_by
from strop.compiler.driver.blame import find_suspect, suspect_by
from strop.compiler.driver.metric_blame import hold_metrics
from strop.compiler.driver.part import Ready
from strop.compiler.driver.speed import FloatFiles, hold_to_time
from strop.compiler.frontend.evaluation import evaluate
from strop.compiler.targets.isolation import open_isolated
from strop.compiler.targets.runtime import runner


@dataclass(frozen=True)
class Checked:
    """What the written file gave.

    Attributes:
        results: every output of every case against the original's.
        metrics: what the user's ``evaluate`` says of it.
        milliseconds: a quick look at one run on the first case, of the "artifact" and, where it is
            quantized, of the model in "float"; None for what was not timed.
        notes: what of the files was not run, in sentences.
    """

    results: list[Comparison]
    metrics: dict[str, float]
    milliseconds: dict[str, float | None]
    notes: Sequence[str] = ()


def check_file(folder: Path, in_float: FloatFiles | None, part: Ready) -> Checked:
    """Run the file of a program on all cases, in a process of its own.

    Args:
        folder: the files of the target.
        in_float: what a quantized program is timed against.
        part: the program, its cases and metrics, the budget and the clock.

    Raises:
        BudgetError: outputs, metrics or the time miss the budget; the message names the step to
            blame.
        UsageError: the user's ``evaluate`` failed.
        RuntimeRefusedError: the runtime does not take the files.
    """
    job, captured, first = part.job, part.captured, part.captured.cases[0]
    contract = part.optimized.program.contract
    feeds = feeds_of(first, contract)
    with open_isolated(folder, job.target, part.name) as session:
        with job.stages.stage("check"):
            results = check_session(session, captured.cases, contract)
            hold_outputs(results, part)
            metrics = evaluate(part.measure, lambda: runner(session), "the artifact")
            took = session.milliseconds(feeds, f"case '{first.name}'", first.seconds)
            hold_metrics(metrics, part)
        milliseconds: dict[str, float | None] = {"artifact": took}
        if in_float is not None:
            milliseconds["float"] = hold_to_time(session, in_float, first, contract, job)
    return Checked(results, metrics, milliseconds)


def hold_outputs(results: Sequence[Comparison], part: Ready) -> None:
    """Check the outputs against the budget; where they miss it, name the step to blame.

    Raises:
        BudgetError: they miss it.
    """
    job = part.job
    missed = missed_by(results, job.recipe.budget)
    if not missed:
        return
    worst = max(missed, key=lambda r: r.max_error)
    case = next(c for c in part.captured.cases if c.name == worst.case)
    with job.stages.stage("look for the step to blame"):
        suspect = suspect_by(
            lambda: find_suspect(part.again, job.recipe, job.target, case, job.program)
        )
    hold_to_budget(results, job.recipe.budget, suspect)
