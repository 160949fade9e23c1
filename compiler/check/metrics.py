"""Metrics that the model's ``evaluate`` returns, compared with the budget of the recipe."""

from __future__ import annotations

from collections.abc import Mapping

from strop.compiler.recipes.budget import Budget, MetricBudget
from strop.compiler.util.errors import BudgetError, UsageError, did_you_mean

Metrics = Mapping[str, float]
# Metrics are often means in float32: differences below its rounding are none. (2**-23)
_ROUNDING = 1.1920929e-07


def require_measure(budget: Budget, has_measure: bool) -> None:
    """Check that a model has an ``evaluate`` where the budget names metrics.

    Raises:
        UsageError: it has none.
    """
    if budget.metrics and not has_measure:
        named = ", ".join(f"'{name}'" for name in budget.metrics)
        raise UsageError(
            f"the recipe has a budget for {named}, and the model has nothing that measures it: "
            "give Model(..., evaluate=lambda run: {...})"
        )


def require_metrics(budget: Budget, original: Metrics) -> None:
    """Check that the original has every metric that the budget names.

    Raises:
        UsageError: one of them is not there.
    """
    for name in budget.metrics:
        if name not in original:
            raise UsageError(
                f"the recipe has a budget for '{name}', which evaluate did not return"
                f"{did_you_mean(name, list(original)) if original else '; it returned none'}"
            )


def require_same_metrics(original: Metrics, found: Metrics, of: str) -> None:
    """Check that what was measured later has the same metrics as the original.

    Args:
        original: the metrics of the original.
        found: those measured later.
        of: what they were measured on, for messages: "the artifact".

    Raises:
        UsageError: ``evaluate`` returned other names.
    """
    if original.keys() != found.keys():
        raise UsageError(
            f"evaluate returned other metrics for {of} ({_names(found)}) than for the "
            f"original ({_names(original)})"
        )


def missed_metrics(budget: Budget, original: Metrics, found: Metrics) -> dict[str, str]:
    """What is wrong with each metric that misses its budget, in words, by the metric's name."""
    missed = {}
    for name, limits in budget.metrics.items():
        wrong = _miss(limits, original[name], found[name])
        if wrong is not None:
            missed[name] = f"{name} is {original[name]:.6g} for the original and {wrong}"
    return missed


def refusal(missed: Mapping[str, str], budget: Budget, suspect: str) -> BudgetError:
    """The error message for metrics that miss their budget, with the step that is to blame."""
    lines = "\n  ".join(missed.values())
    return BudgetError(
        f"{len(missed)} of {len(budget.metrics)} metrics miss their budget:\n"
        f"  {lines}\nSuspected: {suspect}. Nothing was written."
    )


def _names(metrics: Metrics) -> str:
    return ", ".join(f"'{name}'" for name in metrics) or "none"


def _miss(limits: MetricBudget, original: float, found: float) -> str | None:
    """How a metric of the artifact misses its budget, or None."""
    slack = _ROUNDING * max(abs(original), abs(found))
    fell, rose = original - found, found - original
    told = {
        "max_drop": (fell, f", a drop of {fell:.6g}"),
        "max_rise": (rose, f", a rise of {rose:.6g}"),
        "max": (found, ""),
    }
    for key, (value, words) in told.items():
        limit = getattr(limits, key)
        if limit is not None and value > limit + slack:
            return f"{found:.6g} for the artifact{words} (budget: {key} {limit:.6g})"
    if limits.min is not None and found < limits.min - slack:
        return f"{found:.6g} for the artifact (budget: min {limits.min:.6g})"
    return None
