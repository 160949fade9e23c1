"""What the command line asks of a suite, and what every suite does at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from strop.bench.pages import tables
from strop.bench.records.figures import Figure, console, save, show
from strop.bench.records.record import DuelRecord, Plan
from strop.compiler.util.errors import RuntimeRefusedError


@dataclass(frozen=True)
class Order:
    """What the command line asks of a suite.

    Attributes:
        against: peers.
        plan: how to measure.
        results: folder for the record.
    """

    against: Sequence[str]
    plan: Plan
    results: Path


def print_duel(record: DuelRecord) -> None:
    """Show a duel.

    Raises:
        RuntimeRefusedError: an artifact did not run.
    """
    tables.print_record(record, console)
    for row in record.engines:
        if row.subject and row.outcome != "ran":
            raise RuntimeRefusedError(f"{row.name} {row.reason}")


def finish(
    suite: str, record: DuelRecord, figures: Sequence[Figure], measured: object, order: Order
) -> None:
    """Show a suite's figures, and write its record."""
    if figures:
        show(figures, suite)
    save(suite, record.environment, figures, measured, order.results)
