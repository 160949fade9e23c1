"""``--fail-if``: a condition on what was measured under which a CI job fails."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from strop.bench.records.metrics import METRICS, NotMeasuredError, speedup
from strop.bench.records.record import DuelRecord
from strop.compiler.util.errors import UsageError, did_you_mean

SPEEDUP = "speedup"
_SYNTAX = re.compile(r"\s*(\w+)(?:\.([\w-]+))?\s*(<=|>=|<|>)\s*(\d+(?:\.\d*)?(?:[eE]-?\d+)?)\s*")
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Condition:
    """``METRIC OP NUMBER`` or ``METRIC.ENGINE OP NUMBER``.

    Attributes:
        text: as it was written.
        metric: a name in ``METRICS``, or "speedup".
        engine: whose number, the artifact's if it is None; for "speedup", over which peer, the
            first of ``--against`` if it is None.
        holds: whether a value meets it.
    """

    text: str
    metric: str
    engine: str | None
    holds: Callable[[float], bool]

    def check(self, record: DuelRecord, subject: str, first: str | None) -> str | None:
        """A sentence where the condition holds, or its number was not measured; otherwise None."""
        try:
            value = self._value(record, subject, first)
        except NotMeasuredError as error:
            return f"{self.text}: cannot be told, {error}"
        return f"{self.text}: it is {value:.4g}" if self.holds(value) else None

    def _value(self, record: DuelRecord, subject: str, first: str | None) -> float:
        for name in (subject, self.engine or (first if self.metric == SPEEDUP else None)):
            if name and record.engine(name).outcome != "ran":
                raise NotMeasuredError(f"{name} did not run")
        if self.metric != SPEEDUP:
            return METRICS[self.metric](record, self.engine or subject)
        over = self.engine or first
        assert over is not None
        return speedup(record, subject, over)


def parse_condition(text: str, engines: Sequence[str], against: Sequence[str]) -> Condition:
    """Read a condition.

    Args:
        text: as written on the command line.
        engines: all that take part.
        against: the peers among them.

    Raises:
        UsageError: it is no condition, or nothing that this run measures.
    """
    found = _SYNTAX.fullmatch(text)
    known = [SPEEDUP, *METRICS]
    if not found:
        raise UsageError(
            f"--fail-if '{text}': write METRIC<NUMBER, METRIC>NUMBER, or METRIC.ENGINE<NUMBER; "
            f"metrics: {', '.join(known)}"
        )
    metric, engine, sign, number = found.groups()
    if metric not in known:
        raise UsageError(f"--fail-if '{text}': no metric '{metric}'{did_you_mean(metric, known)}")
    allowed = list(against if metric == SPEEDUP else engines)
    if engine and engine not in allowed:
        raise UsageError(
            f"--fail-if '{text}': '{engine}' does not take part{did_you_mean(engine, allowed)}"
        )
    if metric == SPEEDUP and not against:
        raise UsageError(f"--fail-if '{text}': there is nothing to be faster than; give --against")
    bound, compare = float(number), _OPERATORS[sign]
    return Condition(text.strip(), metric, engine, lambda value: compare(value, bound))
