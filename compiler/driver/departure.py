"""Find the first value at which a lowered file differs from its program, when no pass is to blame.

A value of the program keeps its name in the file, so both can be run and compared value by value,
the file without the runtime's own optimizations; with them, its outputs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from strop.compiler.ir.program import Program
from strop.compiler.ir.running import Inputs, in_contract
from strop.compiler.ir.values import first_moved, values
from strop.compiler.lower.lowering import lowering_of
from strop.compiler.targets.runtime import runtime_of
from strop.compiler.targets.target import Target
from strop.compiler.util.arrays import to_array
from strop.compiler.util.numerics import Array, drift

# Integers that the file and the program round apart stay above this ratio of signal to noise.
NOISE_DB = 30.0
LOWERING, RUNTIME = "the lowering", "the runtime's own optimizations"


@dataclass(frozen=True)
class Departure:
    """Where a file first differs from its program.

    Attributes:
        suspect: ``LOWERING`` or ``RUNTIME``.
        moved: the first value that differs, with its source line and how far, in words.
        emitted: the nodes of the file that compute it, one a line; empty for the runtime.
    """

    suspect: str
    moved: str
    emitted: str


def departure(
    program: Program, inputs: Inputs, target: Target, noise_db: float = NOISE_DB
) -> Departure | None:
    """Lower a program and compare both; None where the file computes the same.

    Args:
        program: at any stage of its passes.
        inputs: what to run both on.
        target: what to lower for.
        noise_db: a ratio of signal to noise that the same values stay above.

    Raises:
        UnsupportedError: the program cannot be lowered.
        RuntimeRefusedError: the runtime does not take the file.
    """
    feeds = {n: to_array(t) for n, t in in_contract(inputs, program.contract).items()}
    with tempfile.TemporaryDirectory(prefix="strop-lowered-") as folder:
        files, runtime = Path(folder), runtime_of(target)
        lowering_of(target).lower(program, target).write(files)
        plain, text = runtime.values(files, feeds), runtime.text(files)
        optimized = runtime.open(files, target).run(feeds, "the lowered program")
    moved = first_moved(program, values(program, inputs), under_ir_names(plain, program), noise_db)
    if moved is not None:
        names = {moved.name} | {s for s, n in _output_names(program) if n == moved.name}
        return Departure(LOWERING, moved.text, _emitted(text, names))
    for name, got in optimized.items():
        apart = drift({name: got}, {name: plain[name]})
        if apart.above(noise_db):
            said = f"the output '{name}': max abs {apart.max_abs:.3g}, cosine {apart.cosine}"
            return Departure(RUNTIME, said, "")
    return None


def under_ir_names(found: dict[str, Array], program: Program) -> dict[str, Array]:
    """A file's values under the program's names; in the file, outputs have the contract's names."""
    outputs = _output_names(program)
    others = {n: a for n, a in found.items() if n not in dict(outputs)}
    return others | {node: found[spec] for spec, node in outputs if spec in found}


def _output_names(program: Program) -> list[tuple[str, str]]:
    """Of each output, its name in the contract and the name of its value."""
    return [(s.name, n.name) for s, n in zip(program.contract.outputs, program.outputs)]


def _emitted(text: str, names: Iterable[str]) -> str:
    """The lines of a file's text that compute a value: its own, and what was numbered after it."""
    own = tuple(f"%{name}{end}" for name in names for end in (" ", ".", ","))
    return "\n".join(line for line in text.splitlines() if line.startswith(own))
