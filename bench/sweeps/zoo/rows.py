"""What the record of the zoo holds of each model, and the table of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from strop.bench.pages.tables import TableRow, TextTable
from strop.bench.records.figures import RESULTS
from strop.compiler.util.files.writing import write_whole

NAME = "zoo.json"
HEADS = ("model", "nodes captured", "nodes in the file", "attention found / layers", "worst error")


@dataclass(frozen=True)
class ZooRow:
    """One model: what came of it, or why it does not work.

    Attributes:
        model: its name in the zoo.
        captured: operator calls after capture.
        final: nodes in the ONNX file.
        found: attention operators that the passes made.
        expected: attention layers in the model.
        error: worst difference from the original at any size, relative above magnitude 1.
        reason: why it could not be built; None if it was.
    """

    model: str
    captured: int | None
    final: int | None
    found: int | None
    expected: int
    error: float | None
    reason: str | None


def table(rows: Sequence[ZooRow]) -> TextTable:
    """One line for each model."""
    return TextTable("the zoo", HEADS, [TableRow(_cells(row)) for row in rows])


def _cells(row: ZooRow) -> list[str]:
    if row.reason is not None:
        return [row.model, "–", "–", f"– / {row.expected}", row.reason]
    attention = f"{row.found} / {row.expected}"
    return [row.model, str(row.captured), str(row.final), attention, f"{row.error:.1e}"]


def save_rows(rows: Sequence[ZooRow]) -> None:
    """Put the zoo on record."""
    text = json.dumps([asdict(row) for row in rows], indent=1) + "\n"
    write_whole(RESULTS / NAME, text)


def recorded_rows() -> list[ZooRow]:
    """The zoo as it is on record."""
    return [ZooRow(**row) for row in json.loads((RESULTS / NAME).read_text())]
