"""``strop bench compare``."""

from __future__ import annotations

from pathlib import Path

from strop.bench.pages import tables
from strop.bench.records.compare import compare, differences, of_artifacts
from strop.bench.records.reading import read_record
from strop.compiler.util.errors import BudgetError, UsageError
from strop.compiler.util.terminal import Console

console = Console()


def run_compare(before: Path, after: Path) -> None:
    """Compare two records, and say what got worse.

    Raises:
        UsageError: a file is no record, or the two have nothing in common.
        BudgetError: something got worse beyond the noise.
    """
    old, new = read_record(before), read_record(after)
    found = compare(old, new)
    if not found:
        raise UsageError(f"{before} and {after} have no engine and case in common")
    for sentence in differences(old, new):
        console.print(f"not the same: {sentence}")
    own = of_artifacts(found, old)
    shown = [c for c in found if c in own or c.verdict != "same"]
    console.print(tables.changes(shown).rich())
    worse = [c for c in own if c.verdict == "worse"]
    if worse:
        said = "; ".join(f"{c.engine}, {c.what}: {c.before} to {c.after}" for c in worse)
        raise BudgetError(f"worse than before: {said}")
    console.print("nothing got worse beyond the noise")
