"""How far the original's own rounding to 16 bits moves its outputs.

A model in float16 or bfloat16 rounds every intermediate result; an artifact that computes in
float32 does not. What lies between the two is no error of the artifact: it is measured, by running
the captured program in float32, and added to what the budget allows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from strop.compiler.check.comparison import compare
from strop.compiler.frontend.cases import Case
from strop.compiler.ir.program import Program
from strop.compiler.ir.running import run_program

# More than this many units in the last place would hide a fault.
MOST_UNITS = 32
HALVES = (torch.float16, torch.bfloat16)


def with_rounding(cases: Sequence[Case], programs: Sequence[Program]) -> list[Case]:
    """The cases, each with the rounding of its outputs.

    Args:
        cases: with what the original gave.
        programs: as captured, and after each pass. Of these the first that computes nothing in
            16 bits is run.
    """
    captured = programs[0]
    least = _units_of_outputs(captured)
    unit = max((torch.finfo(d).eps for d in _computed_in(captured)), default=0.0)
    exact = next((p for p in programs if not _computed_in(p)), None) if unit else None
    if exact is None:
        return [replace(case, rounding=least) for case in cases]
    return [
        replace(case, rounding=_larger(least, _moved(case, exact, MOST_UNITS * unit)))
        for case in cases
    ]


def _moved(case: Case, exact: Program, most: float) -> dict[str, float]:
    results = compare(case, run_program(exact, case.inputs), exact.contract)
    return {r.output: min(r.max_error, most) for r in results if r.cosine is not None and r.finite}


def _larger(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, float]:
    return {name: max(a.get(name, 0.0), b.get(name, 0.0)) for name in {**a, **b}}


def _units_of_outputs(program: Program) -> dict[str, float]:
    """By output, one unit in its last place: two results that are nearly equal may round apart."""
    dtypes = {
        s.name: n.meta["val"].dtype for s, n in zip(program.contract.outputs, program.outputs)
    }
    return {name: torch.finfo(d).eps for name, d in dtypes.items() if d in HALVES}


def _computed_in(program: Program) -> set[torch.dtype]:
    """The 16-bit types that operators other than casts give."""
    values = [n.meta["val"] for n in program.calls() if n.target is not torch.ops.aten.to.dtype]
    return {v.dtype for v in values if isinstance(v, torch.Tensor)} & set(HALVES)
