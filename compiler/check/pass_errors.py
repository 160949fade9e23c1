"""How far each pass moved the outputs, from those before it and from the original's.

Programs share their weights and are small, so they are kept while the passes run, and executed
afterwards: the time of a pass is its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from strop.compiler.frontend.cases import Case
from strop.compiler.ir.program import Program
from strop.compiler.ir.running import run_program
from strop.compiler.rewriting.recorder import Recorder
from strop.compiler.util.numerics import Array, drift


def measure_passes(captured: Program, recorder: Recorder, cases: Sequence[Case]) -> None:
    """Fill in ``previous`` and ``original`` of every step that changed the program."""
    wanted = {
        _name(output, case, cases): a for case in cases for output, a in case.expected.items()
    }
    before = _outputs(captured, cases)
    for record, program in zip(recorder.records, recorder.programs):
        if record.modified:
            after = _outputs(program, cases)
            record.previous, record.original = drift(after, before), drift(after, wanted)
            before = after


def _outputs(program: Program, cases: Sequence[Case]) -> dict[str, Array]:
    return {
        _name(output, case, cases): array
        for case in cases
        for output, array in run_program(program, case.inputs).items()
    }


def _name(output: str, case: Case, cases: Sequence[Case]) -> str:
    return output if len(cases) == 1 else f"{output} ({case.name})"
