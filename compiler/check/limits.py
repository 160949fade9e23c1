"""The limits of a build: its accuracy budget, and the expected counts of rewrites."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from strop.compiler.check.comparison import Comparison
from strop.compiler.recipes.budget import Budget
from strop.compiler.rewriting.recorder import StepRecord
from strop.compiler.util.errors import BudgetError, UsageError, did_you_mean


def hold_to_expectations(
    records: Sequence[StepRecord], expected: Mapping[str, int], rules: Collection[str] = ()
) -> None:
    """Check that steps and rules rewrote as often as expected.

    Args:
        records: what the steps did.
        expected: rewrites by the name of a step or a rule.
        rules: the names of all rules, those that found nothing included.

    Raises:
        UsageError: no step or rule has that name.
        BudgetError: another count; with the near misses.
    """
    for name, count in expected.items():
        steps = [r for r in records if r.name == name or name in r.rewrites]
        known = {*rules, *(r.name for r in records), *(n for r in records for n in r.rewrites)}
        if name not in known:
            raise UsageError(f"expected rewrites of '{name}'{did_you_mean(name, sorted(known))}")
        found = sum(sum(r.rewrites.values()) if r.name == name else r.rewrites[name] for r in steps)
        if found != count:
            misses = [m for r in records for m in r.misses if name in (r.name, m.rule)]
            lines = "".join(f"\n  {m.root}: {m.reason}" for m in misses[:5])
            raise BudgetError(
                f"'{name}' was expected to rewrite {count} times and did {found} times. "
                f"Nothing was written. Near misses: {len(misses)}{lines}"
            )


def missed_by(results: Sequence[Comparison], budget: Budget) -> list[Comparison]:
    """The comparisons that miss a budget.

    For outputs that are not float, the share of equal elements is taken over all cases together:
    in a case of one element, a single changed label would be a share of 100 %.
    """
    least = budget.least_agreement
    far = {r.output for r in results if _agreement(r.output, results) < least}
    return [r for r in results if r.misses(budget) and (r.cosine is not None or r.output in far)]


def _agreement(output: str, results: Sequence[Comparison]) -> float:
    """The share of equal elements of an output over all cases."""
    own = [r for r in results if r.output == output]
    wrong = sum((r.mismatches or 0.0) * r.elements for r in own)
    return 1 - wrong / max(sum(r.elements for r in own), 1)


def hold_to_budget(results: Sequence[Comparison], budget: Budget, suspect: str) -> None:
    """Check comparisons with the original against a budget.

    Raises:
        BudgetError: some miss it; the message lists the worst ones and the suspect.
    """
    missed = missed_by(results, budget)
    if not missed:
        return
    worst = sorted(missed, key=lambda r: -r.max_error)[:5]
    lines = "\n  ".join(r.misses(budget) or "" for r in worst)
    raise BudgetError(
        f"{len(missed)} of {len(results)} comparisons with the original miss the budget:\n"
        f"  {lines}\nSuspected: {suspect}. Nothing was written."
    )
