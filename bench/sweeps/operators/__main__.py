"""Torch's operators, one by one: how many of torch's own samples are built, and right.

``python -m strop.bench.sweeps.operators [--dtype float32] [--only NAME] [--jobs 2] [--json FILE]``

A sample counts as ok if the file that ``build`` writes gives what torch gives, on the sample's own
values and on others. Every sample is in the denominator, also those that cannot be compared. Each
dtype goes on record as it ends; dtypes that are not asked for stay there as they are.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from strop.bench.records.figures import RESULTS, Figure, console, save, show
from strop.bench.records.machine import environment
from strop.bench.sweeps.operators.outcomes import SampleOutcome
from strop.bench.sweeps.operators.runs import measure
from strop.bench.sweeps.operators.tables import by_reason, reasons
from strop.compiler.util.files.writing import write_whole

DTYPES = ("float32", "float16", "float64", "int64", "bool", "int32", "uint8")
LEAST_BUILT = 0.85
NAME = "operators"
NAMED = 6  # operators of a reason that the terminal shows


def figures(dtype: str, outcomes: Mapping[str, int]) -> list[Figure]:
    """What is claimed of one dtype, from how many samples ended in which way."""
    share = outcomes.get("ok", 0) / max(1, sum(outcomes.values()))
    bound = LEAST_BUILT if dtype == "float32" else None
    return [
        Figure(f"{dtype} samples built and right, share of all", share, at_least=bound),
        Figure(f"{dtype} samples with wrong numbers", outcomes.get("wrong", 0), at_most=0),
        Figure(f"{dtype} samples that end in a traceback", outcomes.get("traceback", 0), at_most=0),
    ]


def _record(found: dict[str, SampleOutcome]) -> dict[str, Any]:
    return {
        "environment": environment(),
        "samples": len(found),
        "outcomes": dict(Counter(o.kind for o in found.values())),
        "reasons": [
            {"kind": kind, "reason": reason, "samples": labels}
            for kind, reason, labels in by_reason(found)
        ],
    }


def put_on_record(measured: Mapping[str, Any], results: Path) -> list[Figure]:
    """Write what was measured of some dtypes, beside what is on record of others.

    Returns:
        the figures of all of them.
    """
    path = results / f"{NAME}.json"
    recorded = json.loads(path.read_text())["measured"] if path.exists() else {}
    every = {**recorded, **measured}
    claimed = [f for name, part in every.items() for f in figures(name, part["outcomes"])]
    latest = list(measured.values())[-1]
    save(NAME, latest["environment"], claimed, every, results)
    return claimed


def main(
    dtype: Annotated[list[str], typer.Option(help="Dtypes of the samples.")] = list(DTYPES),  # noqa: B006
    only: Annotated[list[str], typer.Option(help="Names of operators; else all.")] = [],  # noqa: B006
    jobs: Annotated[int, typer.Option(min=1, help="Processes that measure side by side.")] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="All outcomes.")] = None,
    results: Annotated[Path, typer.Option(help="Folder for the record of a whole run.")] = RESULTS,
) -> None:
    """Build torch's samples of its operators, and compare each file with torch."""
    every: dict[str, dict[str, Any]] = {}
    measured: dict[str, Any] = {}
    for name in dtype:
        found = measure(name, only, jobs)
        every[name] = {label: asdict(outcome) for label, outcome in found.items()}
        measured[name] = _record(found)
        if only:
            for label, outcome in every[name].items():
                console.print(f"{label}: {outcome}", markup=False)
        else:
            put_on_record({name: measured[name]}, results)
        if json_file is not None:
            write_whole(json_file, json.dumps(every, indent=1) + "\n")
    claimed = [f for name in dtype for f in figures(name, measured[name]["outcomes"])]
    show(claimed, "torch's operator samples")
    console.print(reasons(measured, NAMED).rich())


if __name__ == "__main__":
    typer.run(main)
