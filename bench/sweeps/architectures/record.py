"""The record of the types of ``transformers``: outcomes, figures and tables."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from strop.bench.pages.tables import TableRow, TextTable
from strop.bench.records.figures import Figure, save
from strop.bench.sweeps.architectures.runs import ArchitectureOutcome, Who
from strop.bench.sweeps.architectures.types import ARCHITECTURES

NAME = "architectures"
# Characters of a reason that the table shows.
SHOWN = 160
Measured = Mapping[str, Mapping[str, Any]]
"""By type, then by who built it: an ``ArchitectureOutcome`` as a dict."""


def figures(measured: Measured) -> list[Figure]:
    """What is stated of the types on record."""
    behind = [t for t in measured if _kind(measured, t, "strop") != "ok"]
    converted = [t for t in behind if _kind(measured, t, "torch.onnx") == "ok"]
    unknown = [t for t in behind if "torch.onnx" not in measured[t]]
    right = len(measured) - len(behind)
    return [
        Figure("types tried", len(measured)),
        Figure("types built and right at every size tried", right),
        Figure("types that torch.onnx converts, but not built", len(converted), at_most=0),
        Figure("types not built, and not tried with torch.onnx", len(unknown), at_most=0),
    ]


def _kind(measured: Measured, name: str, who: Who) -> str:
    return str(measured[name][who]["kind"]) if who in measured[name] else "not tried"


def by_outcome(measured: Measured) -> TextTable:
    """How many types ended in which way with both."""
    both: tuple[Who, Who] = ("strop", "torch.onnx")
    groups = Counter(tuple(_kind(measured, name, who) for who in both) for name in measured)
    rows = [TableRow([*kinds, str(count)]) for kinds, count in sorted(groups.items())]
    return TextTable("outcomes", (*both, "types"), rows, 2)


def not_built(measured: Measured) -> TextTable:
    """The types that strop does not build, why, and how they end with the peer."""
    rows = [
        TableRow([name, found["strop"]["reason"][:SHOWN], _kind(measured, name, "torch.onnx")])
        for name, found in measured.items()
        if found["strop"]["kind"] != "ok"
    ]
    return TextTable("not built", ("type", "reason", "torch.onnx"), rows, 3)


def on_record(results: Path) -> dict[str, dict[str, Any]]:
    """The types measured so far."""
    path = results / f"{NAME}.json"
    found: dict[str, dict[str, Any]] = (
        json.loads(path.read_text())["measured"] if path.exists() else {}
    )
    return found


def put_on_record(
    results: Path, place: dict[str, Any], name: str, who: Who, found: ArchitectureOutcome
) -> None:
    """Write the outcome of one type; a new one of strop's leaves the peer's as it is."""
    measured = on_record(results)
    measured[name] = measured.get(name, {}) | {who: asdict(found)}
    ordered = {t: measured[t] for t in ARCHITECTURES if t in measured}
    save(NAME, place, figures(ordered), ordered, results)
