"""Which emitter a target uses where an operator has several.

The fastest one measured; for a target on which nothing was measured, the one that a model of it
prefers, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Annotated, Any

import pydantic

from strop.compiler.ir.printer import op_name
from strop.compiler.targets.target import Target
from strop.compiler.util.files.parsing import Strict, parse_json, validated

# Variants nearer than this are one graph after the runtime's own fusions: noise must not choose.
TIE = math.log(1.05)

Milliseconds = dict[str, dict[str, dict[str, float]]]
"""Operator -> variant -> shape -> median time of one application."""


_Shape = Annotated[str, pydantic.Field(pattern=r"^\d{1,9}(x\d{1,9})*$")]
_Time = Annotated[float, pydantic.Field(gt=0)]
_Times = Annotated[dict[_Shape, _Time], pydantic.Field(min_length=1)]


class _Table(Strict):
    """What is read of a table of measurements."""

    milliseconds: dict[str, dict[str, _Times]]


class _Preference(Strict):
    """The variant of one operator, and why."""

    variant: str
    why: str


class _Model(Strict):
    """A table for a target on which nothing was measured."""

    basis: str
    """What it was read from."""
    preferred: dict[str, _Preference]


@dataclass(frozen=True)
class Choices:
    """Measured times, and the choice that follows from them.

    Attributes:
        milliseconds: what was measured.
        preferred: the variant by operator, where nothing was measured.
    """

    milliseconds: Milliseconds
    preferred: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def from_json(text: str, where: str) -> Choices:
        """Read a table written by ``strop.bench.measures.emitters`` or by ``--tune``.

        Raises:
            UsageError: the text is something else.
        """
        return Choices(validated(_Table, parse_json(text, where), where).milliseconds)

    @staticmethod
    def modelled(text: str, where: str) -> Choices:
        """Read a table of preferences.

        Raises:
            UsageError: the text is something else.
        """
        model = validated(_Model, parse_json(text, where), where)
        return Choices({}, {op: one.variant for op, one in model.preferred.items()})

    def for_rows(self, least: int, most: float = math.inf) -> Choices:
        """Choices for calls whose first operand has from ``least`` to ``most`` rows.

        An operator that was measured at no such shape keeps all its times.
        """

        def within(times: dict[str, float]) -> dict[str, float]:
            return {s: t for s, t in times.items() if least <= rows_of(s) <= most}

        kept = {
            op: {variant: within(times) or times for variant, times in variants.items()}
            for op, variants in self.milliseconds.items()
        }
        return Choices(kept, self.preferred)

    def variant(self, target: Any, variants: list[str]) -> str:
        """The fastest measured variant; the first one in a tie.

        Where nothing was measured, the preferred one, or the first.

        Fastest by the geometric mean over the measured shapes: a graph's sizes are dynamic, so
        it is lowered once for all of them, and each has the same weight.
        """
        measured = self.milliseconds.get(op_name(target), {})
        known = [v for v in variants if v in measured]
        if not known:
            preferred = self.preferred.get(op_name(target), variants[0])
            return preferred if preferred in variants else variants[0]
        best = min(known, key=lambda v: _mean_log(measured[v]))
        tied = _mean_log(measured[known[0]]) - _mean_log(measured[best]) < TIE
        return known[0] if tied else best


def rows_of(shape: str) -> int:
    """Rows of a measured shape: the product of all sizes but the last, ``batch x seq x width``."""
    *rows, _ = shape.split("x")
    return math.prod(map(int, rows))


def _mean_log(times: dict[str, float]) -> float:
    return math.fsum(math.log(max(t, 1e-9)) for t in times.values()) / len(times)


def shipped(target: Target) -> Choices:
    """The table that strop ships for a target.

    It was measured, by ``strop.bench.measures.emitters``, or modelled. Empty where it ships none:
    nothing is known of the runtimes that a file in standard form is for.
    """
    room = resources.files(f"strop.compiler.lower.{target.lowering}")
    for kind, read in (("measured", Choices.from_json), ("modelled", Choices.modelled)):
        file = room.joinpath(f"{kind}_{target.name}.json")
        if file.is_file():
            return read(file.read_text(), file.name)
    return Choices({})
