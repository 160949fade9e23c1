"""The check where the target is not at hand: a stand-in runs its files in the cases that it can.

All other cases are run by the program in torch, whose operators have the formulas of the kernels.
The manifest says which were which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from strop.compiler.check.comparison import check_program, check_session, feeds_of
from strop.compiler.driver.metric_blame import hold_metrics
from strop.compiler.driver.part import Ready
from strop.compiler.driver.verdict import Checked, hold_outputs
from strop.compiler.frontend.cases import Case
from strop.compiler.frontend.evaluation import evaluate
from strop.compiler.ir.contract import Contract
from strop.compiler.ir.program import Program
from strop.compiler.ir.running import run_program
from strop.compiler.targets.isolation import open_isolated
from strop.compiler.targets.runtime import Run, StandIn
from strop.compiler.util.numerics import Array

# Estimated seconds for all cases that a stand-in runs; the cheapest one is always run.
ALLOWANCE = 60.0


def check_by_stand_in(stand_in: StandIn, folder: Path, part: Ready) -> Checked:
    """Run the file of a program on some cases, and the program in torch on all others.

    Args:
        stand_in: what runs the files.
        folder: the files of the target.
        part: the program that was lowered, its cases and metrics, the budget and the clock; the
            user's ``evaluate`` measures the program in torch.

    Raises:
        BudgetError: outputs or metrics miss the budget.
        UsageError: the user's ``evaluate`` failed.
        RuntimeRefusedError: the stand-in does not take the files.
    """
    job, captured, program = part.job, part.captured, part.captured.program
    chosen, others = affordable(stand_in, folder, captured.cases, program.contract)
    with job.stages.stage("check"):
        with open_isolated(folder, job.target, part.name) as session:
            results = check_session(session, chosen, program.contract)
        results += [replace(one, in_torch=True) for one in check_program(program, others)]
        hold_outputs(results, part)
        metrics = evaluate(part.measure, lambda: _runner(program), "the artifact")
        hold_metrics(metrics, part)
    notes = _notes(stand_in, chosen, others, bool(metrics))
    return Checked(results, metrics, {"artifact": None}, notes)


def affordable(
    stand_in: StandIn, folder: Path, cases: Sequence[Case], contract: Contract
) -> tuple[list[Case], list[Case]]:
    """The cases for the stand-in, the cheapest first up to an allowance, and the others."""
    costs = {case.name: stand_in.seconds(folder, feeds_of(case, contract)) for case in cases}
    chosen: set[str] = set()
    spent = 0.0
    for case in sorted(cases, key=lambda case: (costs[case.name], case.name)):
        spent += costs[case.name]
        if chosen and spent > ALLOWANCE:
            break
        chosen.add(case.name)
    return (
        [case for case in cases if case.name in chosen],
        [case for case in cases if case.name not in chosen],
    )


def _runner(program: Program) -> Run:
    def run(**inputs: Any) -> tuple[Array, ...]:
        return tuple(run_program(program, inputs).values())

    return run


def _notes(
    stand_in: StandIn, chosen: Sequence[Case], others: Sequence[Case], measured: bool
) -> list[str]:
    names = ", ".join(f"'{case.name}'" for case in chosen)
    share = f"{len(chosen)} of {len(chosen) + len(others)} cases"
    notes = [
        f"{stand_in.why}: {stand_in.name} ran the files in {share} ({names}); how fast they are "
        "was not measured"
    ]
    if others:
        names = ", ".join(f"'{case.name}'" for case in others)
        notes.append(f"not run by the files, but by the program in torch, for their cost: {names}")
    if measured:
        notes.append("the metrics are those of the program in torch")
    return notes
