"""Torch's operators, one by one: how many of torch's own samples are built, and right.

``python -m strop.bench.operators [--dtype float32] [--only NAME] [--json FILE]``

A sample counts as ok if the file that ``build`` writes gives what torch gives, on the sample's own
values and on others. Every sample is in the denominator, also those that cannot be compared.
"""

from __future__ import annotations

import gc
import json
import logging
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import onnxruntime as ort
import torch
import typer

from strop.bench.figures import RESULTS, Figure, console, save, show
from strop.bench.machine import environment
from strop.bench.operator_outcomes import Outcome, outcome
from strop.bench.operator_samples import operators, samples
from strop.bench.tables import Grid, Row
from strop.compiler.files import write_whole

DTYPES = ("float32", "float16", "float64", "int64", "bool", "int32", "uint8")
LEAST_BUILT = 0.85
FATAL = 4


def measure(dtype: torch.dtype, only: Sequence[str]) -> dict[str, Outcome]:
    """The outcome of every sample of every operator that takes a dtype, by the sample's label."""
    found: dict[str, Outcome] = {}
    entries = [e for e in operators(dtype) if not only or e.name in only]
    for entry in entries:
        for sample in samples(entry, dtype):
            found[sample.label] = outcome(sample)
            if only:
                console.print(f"{sample.label}: {asdict(found[sample.label])}", markup=False)
    return found


def figures(dtype: str, found: Iterable[Outcome]) -> list[Figure]:
    """What is claimed of one dtype."""
    kinds = Counter(o.kind for o in found)
    share = kinds["ok"] / max(1, sum(kinds.values()))
    bound = LEAST_BUILT if dtype == "float32" else None
    return [
        Figure(f"{dtype} samples built and right, share of all", share, at_least=bound),
        Figure(f"{dtype} samples with wrong numbers", kinds["wrong"], at_most=0),
        Figure(f"{dtype} samples that end in a traceback", kinds["traceback"], at_most=0),
    ]


def by_reason(found: dict[str, Outcome]) -> list[tuple[str, str, list[str]]]:
    """Kind, reason and labels of what is not ok, the most frequent first."""
    groups: dict[tuple[str, str], list[str]] = {}
    for label, result in found.items():
        if result.kind != "ok":
            groups.setdefault((result.kind, result.reason), []).append(label)
    ordered = sorted(groups.items(), key=lambda g: -len(g[1]))
    return [(kind, reason, labels) for (kind, reason), labels in ordered]


def reasons(measured: dict[str, Any]) -> Grid:
    """The samples that are not ok, by dtype and reason."""
    rows = [
        Row([dtype, group["kind"], group["reason"], str(len(group["samples"])), _few(group)])
        for dtype, result in measured.items()
        for group in result["not_ok"]
    ]
    return Grid("not ok", ("dtype", "outcome", "reason", "samples", "among them"), rows, 3)


def _few(group: dict[str, Any]) -> str:
    names = list(dict.fromkeys(label.split("[")[0] for label in group["samples"]))
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _record(found: dict[str, Outcome]) -> dict[str, Any]:
    return {
        "samples": len(found),
        "outcomes": dict(Counter(o.kind for o in found.values())),
        "not_ok": [
            {"kind": kind, "reason": reason, "samples": labels}
            for kind, reason, labels in by_reason(found)
        ],
    }


def _quiet() -> None:
    """One thread, no logs; and collections that leave torch's tables of operators alone."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    ort.set_default_logger_severity(FATAL)
    torch.set_num_threads(1)
    operators(torch.float32)
    gc.collect()
    gc.freeze()


def main(
    dtype: Annotated[list[str], typer.Option(help="Dtypes of the samples.")] = list(DTYPES),  # noqa: B006
    only: Annotated[list[str], typer.Option(help="Names of operators; else all.")] = [],  # noqa: B006
    json_file: Annotated[Path | None, typer.Option("--json", help="All outcomes.")] = None,
    results: Annotated[Path, typer.Option(help="Folder for the record of a whole run.")] = RESULTS,
) -> None:
    """Build torch's samples of its operators, and compare each file with torch."""
    _quiet()
    found = {name: measure(getattr(torch, name), only) for name in dtype}
    claimed = [f for name in dtype for f in figures(name, found[name].values())]
    show(claimed, "torch's operator samples")
    measured = {name: _record(outcomes) for name, outcomes in found.items()}
    console.print(reasons(measured).rich())
    if json_file is not None:
        every = {d: {n: asdict(o) for n, o in f.items()} for d, f in found.items()}
        write_whole(json_file, json.dumps(every, indent=1) + "\n")
    if not only:
        save("operators", environment(), claimed, measured, results)


if __name__ == "__main__":
    typer.run(main)
