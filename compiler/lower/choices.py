"""Which emitter a target uses where an operator has several: the fastest one measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
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


_Times = Annotated[dict[str, Annotated[float, pydantic.Field(gt=0)]], pydantic.Field(min_length=1)]


class _Table(Strict):
    """What is read of a table."""

    milliseconds: dict[str, dict[str, _Times]]


@dataclass(frozen=True)
class Choices:
    """Measured times, and the choice that follows from them."""

    milliseconds: Milliseconds

    @staticmethod
    def from_json(text: str, where: str) -> Choices:
        """Read a table written by ``strop.bench.measures.emitters`` or by ``--tune``.

        Raises:
            UsageError: the text is something else.
        """
        return Choices(validated(_Table, parse_json(text, where), where).milliseconds)

    def variant(self, target: Any, variants: list[str]) -> str:
        """The fastest measured variant; the first one where nothing was measured, or in a tie.

        Fastest by the geometric mean over the measured shapes: a graph's sizes are dynamic, so
        it is lowered once for all of them, and each has the same weight.
        """
        measured = self.milliseconds.get(op_name(target), {})
        known = [v for v in variants if v in measured]
        if not known:
            return variants[0]
        best = min(known, key=lambda v: _mean_log(measured[v]))
        tied = _mean_log(measured[known[0]]) - _mean_log(measured[best]) < TIE
        return known[0] if tied else best


def _mean_log(times: dict[str, float]) -> float:
    return math.fsum(math.log(max(t, 1e-9)) for t in times.values()) / len(times)


def shipped(target: Target) -> Choices:
    """The table that strop ships for a target, measured by ``strop.bench.measures.emitters``.

    Empty where it ships none: nothing is known of the runtimes that a file in standard form is for.
    """
    room = resources.files(f"strop.compiler.lower.{target.lowering}")
    file = room.joinpath(f"measured_{target.name}.json")
    return Choices.from_json(file.read_text(), file.name) if file.is_file() else Choices({})
