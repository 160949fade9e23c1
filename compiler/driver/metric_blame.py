"""Check the metrics of the written file; find the step that made a failing one worse."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch

from strop.compiler.check.metrics import (
    Metrics,
    missed_metrics,
    refusal,
    require_same_metrics,
)
from strop.compiler.driver.blame import (
    NOT_THE_SAME,
    UNKNOWN,
    after_each_change,
    departing_value,
    suspect_by,
)
from strop.compiler.driver.informed import informed
from strop.compiler.driver.part import Ready
from strop.compiler.frontend.data import context_of
from strop.compiler.frontend.evaluation import evaluate, module_runner
from strop.compiler.frontend.export.capture import capture
from strop.compiler.frontend.inputs import read_inputs
from strop.compiler.ir.program import Program
from strop.compiler.recipes.budget import Budget
from strop.compiler.util.errors import StropError


def hold_metrics(found: Metrics, part: Ready) -> None:
    """Check the metrics of a written file against their budget.

    Args:
        found: what ``evaluate`` says of the file.
        part: the program, with the budget and the original's metrics.

    Raises:
        UsageError: they are other metrics than the original's.
        BudgetError: some miss it; the step that is to blame is named.
    """
    original, budget = part.captured.metrics, part.job.recipe.budget
    require_same_metrics(original, found, "the artifact")
    missed = missed_metrics(budget, original, found)
    if not missed:
        return
    with part.job.stages.stage("look for the step to blame"):
        suspect = suspect_by(lambda: find_metric_suspect(part))
    raise refusal(missed, budget, suspect)


def find_metric_suspect(part: Ready) -> str:
    """The step after which a metric misses its budget, in words for the refusal."""
    recipe, target, original = part.job.recipe, part.job.target, part.captured.metrics
    if missed_metrics(recipe.budget, original, original):
        return "no step: the original itself misses the budget"
    model = part.again()
    if model is None:
        return UNKNOWN
    with torch.no_grad():
        signature, example, _ = read_inputs(model)
        run = partial(module_runner, model.module, signature)
        found = evaluate(model.evaluate, run, "the original")
        require_same_metrics(original, found, "the original, run once more,")
        if missed_metrics(recipe.budget, original, found):
            return NOT_THE_SAME
        context = context_of(model, target)
        assert context.evaluate is not None
        captured = capture(model.module, signature, example)
        del model, run
        steps, name = recipe.pipeline().within(context), part.job.program
        pipeline = informed(steps, captured, example, target, name=name)
        states = list(after_each_change(captured, pipeline))
        search = _Search(context.evaluate, recipe.budget, original, [p for _, p in states])
        place = search.first_miss()
        if place is None:
            return departing_value(states[-1][1], target, part.captured.cases[0])
        return f"{states[place][0]} ({search.told(place)})"


@dataclass
class _Search:
    """Looks for the first program whose metrics miss the budget, and measures few of them.

    Attributes:
        measure: the user's metrics of a program.
        programs: as captured, and after each pass that changed it.
        known: what was measured: the metrics, or why there are none, by place.
    """

    measure: Callable[[Program], Metrics]
    budget: Budget
    original: Metrics
    programs: list[Program]
    known: dict[int, Metrics | str] = field(default_factory=dict)

    def first_miss(self) -> int | None:
        """The place of the first program that misses the budget; None if the last one does not."""
        last = len(self.programs) - 1
        if not self._misses(last):
            return None
        return bisect_left(range(last), True, key=self._misses)

    def told(self, place: int) -> str:
        """The metric at a place and before it; both were measured to find the place."""
        found = self.known[place]
        if isinstance(found, str):
            return found
        name = next(iter(missed_metrics(self.budget, self.original, found)))
        before = self.known[place - 1] if place else self.original
        assert not isinstance(before, str)
        return f"{name} {before[name]:.6g} before it, {found[name]:.6g} after it"

    def _misses(self, place: int) -> bool:
        if place not in self.known:
            try:
                found = self.measure(self.programs[place])
                require_same_metrics(self.original, found, "the program")
                self.known[place] = found
            except StropError as error:  # the user's code on whatever a wrong program gives
                self.known[place] = str(error).splitlines()[0]
        known = self.known[place]
        return isinstance(known, str) or bool(missed_metrics(self.budget, self.original, known))
