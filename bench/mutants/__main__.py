"""``python -m strop.bench.mutants --seed 0``: draw mutants, run their tests, list survivors."""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from strop.bench.mutants.equivalent import read_equivalent
from strop.bench.mutants.index import Index, read_index
from strop.bench.mutants.population import Mutant, draw
from strop.bench.mutants.report import MutantOutcome, figure, print_report, survivor
from strop.bench.mutants.session import preload
from strop.bench.mutants.targets import ROOT, target_files
from strop.bench.mutants.trial import try_mutant
from strop.bench.processes.forks import Ended, ForkedCall, forked
from strop.bench.records.figures import console, save
from strop.bench.records.machine import environment

STARTUP = 20.0  # CPU seconds that a mutant gets beyond three times what its tests take


def nearest(index: Index, mutant: Mutant, budget: float) -> list[tuple[str, float]]:
    """The fastest tests that execute the mutant's line, as many as take ``budget`` seconds."""
    tests = index.tests_for(mutant.file, mutant.line)
    ends = itertools.accumulate(seconds for _, seconds in tests)
    return [test for i, (test, end) in enumerate(zip(tests, ends)) if i == 0 or end <= budget]


def try_all(
    mutants: Iterable[Mutant], index: Index, budget: float, at_once: int
) -> Iterator[MutantOutcome]:
    """The outcome of each mutant, as it comes."""
    calls = []
    for mutant in mutants:
        tests = nearest(index, mutant, budget)
        if not tests:
            yield MutantOutcome(mutant, "no test", "", 0.0)
            continue
        names = [name for name, _ in tests]
        limit = STARTUP + 3 * sum(seconds for _, seconds in tests)
        calls.append(ForkedCall(partial(try_mutant, mutant, names), limit, mutant))
    for ended in forked(calls, at_once):
        yield outcome(ended)


def outcome(ended: Ended) -> MutantOutcome:
    """What the end of a trial means; a test that crashes the process has noticed the mutant."""
    if ended.how == "returned":
        fate = "killed" if ended.value else "survived"
        return MutantOutcome(ended.about, fate, ended.value, ended.seconds)
    fate = {"timeout": "timeout", "crashed": "killed"}.get(ended.how, "not tried")
    return MutantOutcome(ended.about, fate, ended.value or ended.how, ended.seconds)


def test_files(words: str = "", root: Path = ROOT) -> list[str]:
    """Files of tests within the checkout whose name contains one of the words, by commas."""
    found = sorted(p.relative_to(root).as_posix() for p in (root / "tests").glob("**/test_*.py"))
    return [name for name in found if any(word in name for word in words.split(","))]


def main(
    seed: Annotated[int, typer.Option(help="Which mutants are drawn.")] = 0,
    count: Annotated[int, typer.Option(min=1, help="How many.")] = 200,
    only: Annotated[str, typer.Option(help="From files whose path contains this.")] = "",
    tests: Annotated[str, typer.Option(help="Use files of tests named like this, or this.")] = "",
    budget: Annotated[float, typer.Option(help="CPU seconds of tests for one mutant.")] = 30.0,
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = os.cpu_count() or 1,
    results: Annotated[Path | None, typer.Option(help="Folder for the JSON.")] = None,
) -> None:
    """Draw mutants and list those that no quick test notices; exit 3 below 90 %."""
    start = time.perf_counter()
    preload()
    known = read_equivalent()
    drawn = list(itertools.islice(draw(target_files(only=only), seed, known), count))
    with tempfile.TemporaryDirectory() as scratch:
        # Copies of this process are killed at their limit: what they wrote goes with the folder.
        os.environ["TMPDIR"] = tempfile.tempdir = scratch
        with console.status("tracing the tests"):
            index = read_index(test_files(tests), target_files(), ROOT / ".mutants", jobs)
        outcomes = _watched(try_all(drawn, index, budget, jobs), len(drawn))
    print_report(outcomes, known, seed, time.perf_counter() - start)
    if results:
        save("mutants", environment(), [figure(outcomes)], _measured(outcomes, seed), results)
    raise typer.Exit(0 if figure(outcomes).hit else 3)


def _watched(outcomes: Iterable[MutantOutcome], count: int) -> list[MutantOutcome]:
    """All outcomes; how far it is, and each survivor, is shown as they come."""
    found = []
    with console.status("") as status:
        for one in outcomes:
            found.append(one)
            status.update(f"{len(found)} of {count}")
            if not one.killed:
                console.print(survivor(one))
    return found


def _measured(outcomes: Sequence[MutantOutcome], seed: int) -> dict[str, object]:
    survivors = [survivor(o) for o in outcomes if not o.killed]
    return {"seed": seed, "drawn": len(outcomes), "survivors": survivors}


if __name__ == "__main__":
    typer.run(main)
