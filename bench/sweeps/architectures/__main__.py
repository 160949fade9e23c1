"""Tiny models of the types of ``transformers``: which are built, and which ``torch.onnx`` converts.

``python -m strop.bench.sweeps.architectures [--peer WHICH] [--missing] [MODEL_TYPE ...]``

A type counts as ok if the file gives what the module gives on the example and at the smallest, the
largest and odd sizes of batch and sequence. Each type goes on record as it ends, so that a stop
loses nothing; types that are not asked for stay there as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from strop.bench.records.figures import RESULTS, ResultsFolder, console, show
from strop.bench.records.machine import environment
from strop.bench.sweeps.architectures.record import (
    by_outcome,
    figures,
    not_built,
    on_record,
    put_on_record,
)
from strop.bench.sweeps.architectures.runs import Who, measure
from strop.bench.sweeps.architectures.types import ARCHITECTURES


class PeerChoice(Enum):
    """Which types ``torch.onnx`` converts as well."""

    none = "none"
    failures = "failures"
    all = "all"


def _try(names: Sequence[str], who: Who, limit: float, results: Path) -> None:
    place = environment()
    for name, found in measure(names, who, limit):
        put_on_record(results, place, name, who, found)
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
    results: ResultsFolder = RESULTS,
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
