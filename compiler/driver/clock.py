"""How long programs take on their target, for passes that choose by it.

What is timed is the file that a build would write: the program after the steps that come behind the
pass that asks, lowered, in a process of its own, with the options that an artifact is opened with.
Steps that learn are left out: they train, which takes long, or prune by themselves, which the pass
that asks does not answer for; and they leave all other operators as they are.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from strop.compiler.ir.program import Program
from strop.compiler.ir.running import Inputs, in_contract
from strop.compiler.lower.choices import Choices
from strop.compiler.lower.lowering import lowering_of
from strop.compiler.rewriting.learning import LearningPass
from strop.compiler.rewriting.passes import Step, run_step
from strop.compiler.targets.isolation import IsolatedSession, open_isolated
from strop.compiler.targets.target import Target
from strop.compiler.util.arrays import to_array
from strop.compiler.util.errors import UsageError
from strop.compiler.util.numerics import Array

# In each round both programs run several times; a machine that is busy for a while spoils a few.
ROUNDS = 9


class TargetClock:
    """Times programs on a target, in rounds in which one runs after the other."""

    def __init__(self, target: Target, inputs: Inputs, choices: Choices | None) -> None:
        """Nothing is run yet.

        Args:
            target: where the programs will run.
            inputs: what they are run on.
            choices: of the lowering; see ``Lowering.lower``.
        """
        self._target, self._inputs, self._choices = target, inputs, choices

    @contextmanager
    def against(
        self, rest: Sequence[Step], program: Program
    ) -> Iterator[Callable[[Program], float]]:
        """A function that gives the time of another program as a share of this one's.

        Args:
            rest: the steps that both will go through.
            program: what others are compared with.

        Raises:
            UnsupportedError: a program cannot be lowered.
            RuntimeRefusedError: the runtime does not run it.
            UsageError: there is no room for the files.
        """
        with self._opened(rest, program) as whole:

            def relative(other: Program) -> float:
                with self._opened(rest, other) as part:
                    return statistics.median(a / b for a, b in turns(part, whole))

            yield relative

    @contextmanager
    def _opened(self, rest: Sequence[Step], program: Program) -> Iterator[Turn]:
        """The file of a program after these steps, opened."""
        lowering, made = lowering_of(self._target), after_steps(rest, program)
        with temporary_folder() as folder:
            lowering.lower(made, self._target, self._choices).write(folder)
            with open_isolated(folder, self._target) as session:
                taken = in_contract(self._inputs, made.contract)
                yield turn(session, {name: to_array(tensor) for name, tensor in taken.items()})


Turn = Callable[[], float]
"""One run; gives its milliseconds."""


def turn(session: IsolatedSession, feeds: Mapping[str, Array]) -> Turn:
    """One run of a session; raises ``RuntimeRefusedError`` where the runtime does not run it."""
    return lambda: session.milliseconds(feeds, "to time it")


def turns(one: Turn, other: Turn) -> Iterator[tuple[float, float]]:
    """Milliseconds of each, in rounds in which one runs after the other.

    Raises:
        RuntimeRefusedError: the runtime does not run one of them.
    """
    for _ in range(ROUNDS):
        yield one(), other()


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """An empty folder, which is removed at the end of the block.

    Raises:
        UsageError: there is no room for its files.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="strop-clock-") as folder:
            yield Path(folder)
    except OSError as error:
        raise UsageError(f"the temporary folder cannot be used: {error}") from error


def after_steps(steps: Sequence[Step], program: Program) -> Program:
    """The program after those steps that do not learn."""
    for step in steps:
        if not isinstance(step.run, LearningPass):
            program = run_step(step, program).program
    return program
