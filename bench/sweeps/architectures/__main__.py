"""Tiny models of the types of ``transformers``: which are built, and which ``torch.onnx`` converts.

``python -m strop.bench.sweeps.architectures [--peer WHICH] [--missing] [MODEL_TYPE ...]``

A type counts as ok if the file gives what the module gives on the example and at the smallest, the
largest and odd sizes of batch and sequence. Each type goes on record as it ends, so that a stop
loses nothing; types that are not asked for stay there as they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from strop.bench.pages.tables import TableRow, TextTable
from strop.bench.records.figures import RESULTS, Figure, console, save, show
from strop.bench.records.machine import environment
from strop.bench.sweeps.architectures.runs import ArchitectureOutcome, Who, measure
from strop.bench.sweeps.architectures.types import ARCHITECTURES

NAME = "architectures"
# Characters of a reason that the table shows.
SHOWN = 160
Measured = Mapping[str, Mapping[str, Any]]
"""By type, then by who built it: an ``ArchitectureOutcome`` as a dict."""


class PeerChoice(Enum):
    """Which types ``torch.onnx`` converts as well."""

    none = "none"
    failures = "failures"
    all = "all"


def figures(measured: Measured) -> list[Figure]:
    """What is claimed of the types on record."""
    behind = [t for t in measured if _kind(measured, t, "strop") != "ok"]
    converted = [t for t in measured if _kind(measured, t, "torch.onnx") == "ok"]
    unknown = [t for t in behind if "torch.onnx" not in measured[t]]
    return [
        Figure("types tried", len(measured)),
        Figure("types built and right at every size tried", len(measured) - len(behind)),
        Figure("types that torch.onnx converts, but not built", len(set(behind) & set(converted)),
               at_most=0),
        Figure("types not built, and not tried with torch.onnx", len(unknown), at_most=0),
    ]  # fmt: skip


def _kind(measured: Measured, name: str, who: Who) -> str:
    return str(measured[name][who]["kind"]) if who in measured[name] else "not tried"


def by_outcome(measured: Measured) -> TextTable:
    """How many types ended in which way with both."""
    groups: dict[tuple[str, str], int] = {}
    for name in measured:
        key = (_kind(measured, name, "strop"), _kind(measured, name, "torch.onnx"))
        groups[key] = groups.get(key, 0) + 1
    rows = [TableRow([*key, str(count)]) for key, count in sorted(groups.items())]
    return TextTable("outcomes", ("strop", "torch.onnx", "types"), rows, 2)


def not_built(measured: Measured) -> TextTable:
    """The types that strop does not build, with its reason and what the peer makes of them."""
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


def _put(
    results: Path, place: dict[str, Any], name: str, who: Who, found: ArchitectureOutcome
) -> None:
    """Put an outcome on record; a new one of strop's leaves the peer's as it is."""
    measured = on_record(results)
    measured[name] = measured.get(name, {}) | {who: asdict(found)}
    ordered = {t: measured[t] for t in ARCHITECTURES if t in measured}
    save(NAME, place, figures(ordered), ordered, results)


def _try(names: Sequence[str], who: Who, limit: float, results: Path) -> None:
    place = environment()
    for name, found in measure(names, who, limit):
        _put(results, place, name, who, found)
        said = f": {found.reason[:300]}" if found.reason else ""
        console.say(f"{name} by {who}: {found.kind}{said} ({found.seconds:.0f} s)")


def _asked(names: Iterable[str]) -> list[str]:
    """Types by name; all where none is named."""
    if unknown := [n for n in names if n not in ARCHITECTURES]:
        raise typer.BadParameter(f"no type of the list: {', '.join(unknown)}")
    return list(names) or list(ARCHITECTURES)


def main(
    names: Annotated[list[str] | None, typer.Argument(metavar="[MODEL_TYPE]...")] = None,
    peer: Annotated[
        PeerChoice, typer.Option(help="Types to convert by torch.onnx too.")
    ] = PeerChoice.failures,
    missing: Annotated[bool, typer.Option(help="Only types that are not on record.")] = False,
    limit: Annotated[float, typer.Option(help="Seconds for one type.")] = 600.0,
    results: Annotated[Path, typer.Option(help="Folder for the record.")] = RESULTS,
) -> None:
    """Build every type, or those named, and put the outcomes on record."""
    asked = _asked(names or [])
    known = on_record(results)
    _try([n for n in asked if not missing or n not in known], "strop", limit, results)
    known = on_record(results)
    if peer is not PeerChoice.none:
        wanted = [n for n in asked if peer is PeerChoice.all or known[n]["strop"]["kind"] != "ok"]
        wanted = [n for n in wanted if not missing or "torch.onnx" not in known[n]]
        _try(wanted, "torch.onnx", limit, results)
    known = on_record(results)
    show(figures(known), "types of transformers")
    console.print(by_outcome(known).rich())
    console.print(not_built(known).rich())


if __name__ == "__main__":
    typer.run(main)
