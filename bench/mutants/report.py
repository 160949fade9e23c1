"""Outcomes of the mutants: the figure, and every survivor as a changed line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from strop.bench.mutants.equivalent import Equivalent
from strop.bench.mutants.population import Mutant
from strop.bench.records.figures import Figure, console, show
from strop.compiler.util.terminal import Table

AT_LEAST = 0.9


@dataclass(frozen=True)
class MutantOutcome:
    """What came of one mutant.

    Attributes:
        fate: "killed", "timeout" (which counts as killed), "survived", "no test" or "not tried".
        by: the test that noticed it, or why it was not tried.
    """

    mutant: Mutant
    fate: str
    by: str
    seconds: float

    @property
    def killed(self) -> bool:
        """Whether a test noticed it."""
        return self.fate in ("killed", "timeout")


def figure(outcomes: Sequence[MutantOutcome]) -> Figure:
    """The share of mutants that a test noticed."""
    killed = sum(outcome.killed for outcome in outcomes)
    return Figure("mutants killed / drawn", killed / max(1, len(outcomes)), at_least=AT_LEAST)


def print_report(
    outcomes: Sequence[MutantOutcome], known: Sequence[Equivalent], seed: int, seconds: float
) -> None:
    """Print the rate by file, what is known to be equivalent, and the figure."""
    console.print(by_file(outcomes))
    for entry in known:
        console.print(
            f"equivalent, not drawn: {entry.file}: {entry.before} -> {entry.after}: {entry.why}",
            markup=False,
            highlight=False,
        )
    fates = Counter(outcome.fate for outcome in outcomes)
    counts = ", ".join(f"{count} {fate}" for fate, count in fates.most_common())
    show([figure(outcomes)], f"seed {seed}: {counts}; {seconds:.0f} s")


def survivor(outcome: MutantOutcome) -> str:
    """Three lines: where and by which operator, the line as it is, the line as it survived."""
    mutant = outcome.mutant
    said = f" ({outcome.by})" if outcome.by else ""
    return (
        f"{outcome.fate}: {mutant.file}:{mutant.line} {mutant.operator}{said}\n"
        f"  - {mutant.before}\n  + {mutant.after}"
    )


def by_file(outcomes: Sequence[MutantOutcome]) -> Table:
    """Killed and drawn for each file."""
    table = Table("file", "killed", "drawn")
    for file in sorted({o.mutant.file for o in outcomes}):
        here = [o for o in outcomes if o.mutant.file == file]
        table.add_row(file, str(sum(o.killed for o in here)), str(len(here)))
    return table
