"""The order that passes ask for: what must stand before them, and what must not."""

from __future__ import annotations

from collections.abc import Sequence

from strop.compiler.rewriting.passes import Step
from strop.compiler.util.errors import UsageError


def require_order(steps: Sequence[Step]) -> None:
    """Check that a pipeline keeps the order that ``after`` and ``before`` of its passes ask for.

    Where a pass occurs more than once, its first place counts.

    Raises:
        UsageError: a pass stands before one that it needs, or behind one that it must precede.
    """
    for step in steps:
        if isinstance(step.run.after, str) or isinstance(step.run.before, str):
            raise UsageError(f"pass '{step.name}': 'after' and 'before' are tuples of pass names")
    first: dict[str, int] = {}
    for place, step in enumerate(steps):
        first.setdefault(step.run.name, place)
    for step in steps:
        place = first[step.run.name]
        for needed in step.run.after:
            if first.get(needed, place) >= place:
                where = "later" if needed in first else "nowhere"
                raise UsageError(
                    f"pass '{step.name}' needs '{needed}' before it; the recipe has it {where}"
                )
        for later in step.run.before:
            if first.get(later, place) < place:
                raise UsageError(
                    f"pass '{step.name}' must come before '{later}'; the recipe has it after that"
                )
