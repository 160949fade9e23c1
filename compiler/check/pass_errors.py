"""How far each pass moved the outputs, from those before it and from the original's.

Programs share their weights and are small, so they are kept while the passes run, and executed
afterwards: the time of a pass is its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from strop.compiler.check.comparable import comparable
from strop.compiler.frontend.cases import Case
from strop.compiler.ir.contract import Contract
from strop.compiler.ir.program import Program
from strop.compiler.ir.running import run_program
from strop.compiler.rewriting.recorder import Recorder
from strop.compiler.util.numerics import Array, drift


def measure_passes(captured: Program, recorder: Recorder, cases: Sequence[Case]) -> None:
    """Fill in ``previous`` and ``original`` of every step that changed the program."""
    wanted = [case.expected for case in cases]
    before = _outputs(captured, cases)
    for record, program in zip(recorder.records, recorder.programs):
        if record.modified:
            after = _outputs(program, cases)
            got, old, original = (
                _named(outputs, cases, program.contract) for outputs in (after, before, wanted)
            )
            record.previous, record.original = drift(got, old), drift(got, original)
            before = after


def _outputs(program: Program, cases: Sequence[Case]) -> list[dict[str, Array]]:
    return [run_program(program, case.inputs) for case in cases]


def _named(
    outputs: Sequence[dict[str, Array]], cases: Sequence[Case], contract: Contract
) -> dict[str, Array]:
    """The outputs of all cases, each by a name of its own, as they compare by the contract."""
    return {
        name if len(cases) == 1 else f"{name} ({case.name})": array
        for case, found in zip(cases, outputs)
        for name, array in comparable(found, contract, case.inputs).items()
    }
