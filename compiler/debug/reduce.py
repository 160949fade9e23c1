"""Shrink the program of a crash bundle while the pass still fails in the same way.

Delta debugging (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002)
over the calls of the graph: parts are left out in ever smaller chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from strop.compiler.debug.apart import fails_apart, load_apart
from strop.compiler.driver.bundle import Bundle, replace_program
from strop.compiler.ir.program import Program
from strop.compiler.ir.subgraph import extract
from strop.compiler.ir.verifier import verify
from strop.compiler.rewriting.passes import Pass
from strop.compiler.util.errors import UsageError, VerifyError

T = TypeVar("T")


def reduce(
    bundle: Bundle, run: Pass, out: Path, say: Callable[[str], None] = lambda _: None
) -> Program:
    """Write a bundle with the smallest program found; returns that program.

    Args:
        bundle: what failed.
        run: its pass.
        out: where the smaller bundle goes.
        say: told of every smaller program that still fails.

    Raises:
        UsageError: the bundle's pass does not fail any more.
    """
    program = load_apart(bundle.program)
    now = fails_apart(run, program)
    if now is None or not now.same_as(bundle.failure):
        raise UsageError(
            f"pass '{bundle.step}' does not fail on {bundle.folder} as it was recorded "
            f"({'it runs' if now is None else now.kind}): nothing to reduce"
        )
    calls = list(program.calls())

    def still_fails(part: Sequence[object]) -> bool:
        wanted = set(part)
        smaller = extract(program, [n for n in calls if n in wanted])
        try:
            verify(smaller)
        except VerifyError:
            return False  # not every part of a program is one
        failure = fails_apart(run, smaller)
        if failure is None or not failure.same_as(bundle.failure):
            return False
        say(f"{len(part)} of {len(calls)} calls still fail")
        return True

    if not still_fails(calls):
        raise UsageError(
            f"pass '{bundle.step}' fails on the whole program of {bundle.folder} only, outputs "
            "included: nothing can be left out"
        )
    smallest = extract(program, minimize(calls, still_fails))
    replace_program(bundle, smallest, out)
    return smallest


def minimize(items: Sequence[T], still_fails: Callable[[Sequence[T]], bool]) -> list[T]:
    """A part of the items that still fails, and none of whose items can be left out alone."""
    kept, chunks = list(items), 2
    while len(kept) > 1:
        size = -(-len(kept) // chunks)
        starts = range(0, len(kept), size)
        smaller = next(
            (rest for s in starts if still_fails(rest := kept[:s] + kept[s + size :])), None
        )
        if smaller is not None:
            kept, chunks = smaller, max(chunks - 1, 2)
        elif size == 1:
            break
        else:
            chunks = min(2 * chunks, len(kept))
    return kept
