"""Random models by NNSmith: which are built, and right.

``python -m strop.bench.sweeps.random_graphs [--seeds 0-199] [--jobs 2] [--json FILE]``
"""

from __future__ import annotations

import json
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import torch
import typer

from strop.bench.records.figures import Figure, console, save, show
from strop.bench.records.machine import environment
from strop.bench.sweeps.random_graphs.drawing import operators
from strop.bench.sweeps.random_graphs.runs import GraphResult, rows
from strop.compiler.util.files.writing import write_whole

LEAST_BUILT = 0.9


def seeds_of(text: str) -> Iterator[int]:
    """``0-4,9`` as 0, 1, 2, 3, 4, 9."""
    for part in text.split(","):
        bounds = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if bounds is None:
            raise typer.BadParameter(f"'{part}' is neither a seed nor two with a dash")
        first, last = bounds.groups()
        yield from range(int(first), int(last or first) + 1)


def figures(counts: Mapping[str, int]) -> list[Figure]:
    """What is stated of graphs, from how many of them ended in which way."""
    share = counts.get("ok", 0) / max(1, sum(counts.values()))
    wrong = counts.get("wrong", 0) + counts.get("run", 0)
    return [
        Figure("graphs built, run and right, share of all", share, at_least=LEAST_BUILT),
        Figure("graphs with wrong numbers, or that do not run", wrong, at_most=0),
        Figure("graphs that end in a traceback", counts.get("traceback", 0), at_most=0),
    ]


def printed(found: Iterable[GraphResult]) -> Iterator[GraphResult]:
    """The same, each shown as it comes."""
    for last in found:
        said = f" {last.reason}: {last.detail[:300]}" if last.reason else ""
        console.print(f"{last.seed} {last.kind}{said}")
        yield last


def main(
    seeds: Annotated[str, typer.Option(help="Such as 0-199 or 3,17.")] = "0-199",
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    record: Annotated[Path | None, typer.Option("--json", help="Where to write the rows.")] = None,
    results: Annotated[Path | None, typer.Option(help="Folder for the record.")] = None,
) -> None:
    """Build a random graph for each seed, run the file, and compare it with torch."""
    warnings.filterwarnings("ignore")
    try:
        kinds = operators()
    except ImportError as error:
        raise typer.BadParameter(f"{error}: pip install -e '.[fuzz]'") from error
    torch.set_num_threads(1)  # a fork has no other threads
    found = sorted(printed(rows(kinds, seeds_of(seeds), jobs)), key=lambda r: r.seed)
    if record is not None:
        write_whole(record, json.dumps([asdict(r) for r in found], indent=1) + "\n")
    counts = Counter(r.kind for r in found)
    stated = figures(counts)
    show(stated, "random graphs")
    total = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
    console.print(f"{len(found)} graphs: {total}")
    if results is not None:
        not_ok = [asdict(r) for r in found if r.kind != "ok"]
        measured = {"seeds": seeds, "outcomes": dict(counts), "not_ok": not_ok}
        save("random_graphs", environment(), stated, measured, results)
    if counts["wrong"] or counts["traceback"] or counts["run"]:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
