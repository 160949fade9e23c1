"""A quantized model has to be as fast as the same one in float, on the target, by measurement."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from strop.compiler.check.comparison import feeds_of
from strop.compiler.driver.clock import temporary_folder, turn, turns
from strop.compiler.driver.job import Job
from strop.compiler.driver.unquantized import InFloat
from strop.compiler.frontend.cases import Case
from strop.compiler.ir.contract import Contract
from strop.compiler.lower.lowering import lowering_of
from strop.compiler.targets.isolation import IsolatedSession, open_isolated
from strop.compiler.util.collector import collector_paused
from strop.compiler.util.errors import BudgetError

# A difference up to these is noise, however often it is measured.
SLACK, SLACK_MS = 1.05, 0.1
# After so many rounds, what took less than it may in each, by that much, is not measured further.
FEW, CLEAR = 3, 0.9


@dataclass(frozen=True)
class FloatFiles:
    """The files of a program in float.

    Attributes:
        folder: where they lie.
        without: the names of the steps that it was made without.
        contract: of the program.
    """

    folder: Path
    without: tuple[str, ...]
    contract: Contract


@contextmanager
def written(found: InFloat | None, job: Job) -> Iterator[FloatFiles | None]:
    """The files of a program in float, for as long as the block; its weights are let go of."""
    if found is None:
        yield None
        return
    with temporary_folder() as folder:
        with job.stages.stage("lower in float"), collector_paused():
            lowering = lowering_of(job.target)
            lowering.lower(found.program, job.target, job.options.choices).write(folder)
        found.program.weights.clear()
        yield FloatFiles(folder, found.without, found.program.contract)


def hold_to_time(
    session: IsolatedSession, in_float: FloatFiles, case: Case, contract: Contract, job: Job
) -> float:
    """Check that a quantized model takes no longer than one in float.

    Args:
        session: the quantized one.
        in_float: the other.
        case: what both are run on.
        contract: of the quantized one.
        job: the limit, the target and the clock.

    Returns:
        Milliseconds of one run in float.

    Raises:
        BudgetError: the quantized one takes longer.
        RuntimeRefusedError: the runtime does not take the files.
    """
    limit = job.recipe.budget.max_time or 1.0
    with job.stages.stage("time in float"), open_isolated(in_float.folder, job.target) as other:
        mine = turn(session, feeds_of(case, contract))
        rounds = turns(mine, turn(other, feeds_of(case, in_float.contract)))
        took = list(_until_clear(rounds, limit))
    ratio = statistics.median(a / b for a, b in took)
    ours = statistics.median(a for a, _ in took)
    theirs = statistics.median(b for _, b in took)
    if ratio > limit * SLACK and ours - limit * theirs > SLACK_MS:
        steps = " and ".join(f"'{name}'" for name in in_float.without)
        raise BudgetError(
            f"one run takes {ours:.3g} ms, {ratio:.2f} times as long as without {steps} "
            f"({theirs:.3g} ms), as measured here (budget: max_time {limit:g}). Name the layers to "
            "leave in float (keep), take another scheme, or allow it: "
            f"--set budget.max_time={ratio + 0.1:.1f}. Nothing was written."
        )
    return theirs


def _until_clear(
    rounds: Iterator[tuple[float, float]], limit: float
) -> Iterator[tuple[float, float]]:
    """The rounds, up to where it is clear that the first one takes less than it may."""
    faster = 0
    for number, (ours, theirs) in enumerate(rounds, 1):
        yield ours, theirs
        faster += ours < CLEAR * limit * theirs
        if number >= FEW and faster == number:
            return
