"""Torch's operators, one by one: how many of torch's own samples are built, and right.

``python -m strop.bench.sweeps.operators [--dtype float32] [--only NAME] [--jobs 2] [--json FILE]``

A sample counts as ok if the file that ``build`` writes gives what torch gives, on the sample's own
values and on others. Every sample counts in the total, also those that cannot be compared. Each
dtype goes on record as it ends; dtypes that are not asked for stay there as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from strop.bench.records.figures import RESULTS, ResultsFolder, console, show
from strop.bench.sweeps.operators.outcomes import SampleOutcome
from strop.bench.sweeps.operators.record import figures, put_on_record, summary
from strop.bench.sweeps.operators.runs import measure
from strop.bench.sweeps.operators.tables import reasons
from strop.compiler.util.files.writing import write_whole

DTYPES = ("float32", "float16", "float64", "int64", "bool", "int32", "uint8")
NAMED = 6  # operators of a reason that the terminal shows


def _print_outcomes(found: Mapping[str, SampleOutcome]) -> None:
    for label, outcome in found.items():
        console.print(f"{label}: {asdict(outcome)}", markup=False)


def _write(outcomes: Mapping[str, Mapping[str, SampleOutcome]], file: Path) -> None:
    every = {
        dtype: {label: asdict(outcome) for label, outcome in found.items()}
        for dtype, found in outcomes.items()
    }
    write_whole(file, json.dumps(every, indent=1) + "\n")


def main(
    dtype: Annotated[list[str], typer.Option(help="Dtypes of the samples.")] = list(DTYPES),  # noqa: B006
    only: Annotated[list[str], typer.Option(help="Names of operators; else all.")] = [],  # noqa: B006
    jobs: Annotated[int, typer.Option(min=1, help="Processes that measure side by side.")] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="All outcomes.")] = None,
    results: ResultsFolder = RESULTS,
) -> None:
    """Build torch's samples of its operators, and compare each file with torch."""
    outcomes: dict[str, Mapping[str, SampleOutcome]] = {}
    measured: dict[str, Any] = {}
    for name in dtype:
        outcomes[name] = measure(name, only, jobs)
        measured[name] = summary(outcomes[name])
        if only:  # a part of the operators is no record
            _print_outcomes(outcomes[name])
        else:
            put_on_record({name: measured[name]}, results)
        if json_file is not None:
            _write(outcomes, json_file)
    stated = [f for name in dtype for f in figures(name, measured[name]["outcomes"])]
    show(stated, "torch's operator samples")
    console.print(reasons(measured, NAMED).rich())


if __name__ == "__main__":
    typer.run(main)
