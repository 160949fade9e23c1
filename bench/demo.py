"""``make demo``: build MiniLM with ``cpu-int8`` and show what that gains and costs.

``python -m strop.bench.demo``
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from strop.bench.harness.listener import listening
from strop.bench.records.figures import console
from strop.bench.records.metrics import median_speedup
from strop.bench.records.record import Plan, size_label
from strop.bench.suites import encoders
from strop.compiler.util.shown import shown
from strop.compiler.util.terminal import Table

RECIPE = "cpu-int8"
EAGER, BASELINE, ARTIFACT = "eager", "ort", encoders.subject(RECIPE)
HEADS = ("torch eager", "torch.onnx + ORT", ARTIFACT)


def summary(found: encoders.Found) -> Table:
    """Original and artifact side by side: a column for each engine, a row for each quantity."""
    record, names = found.record, (EAGER, BASELINE, ARTIFACT)
    table = Table("MiniLM-L6, 22.7 million weights", *HEADS)
    for case in record.cases:
        cells = [f"{case.results[n].milliseconds.median:.2f} ms" for n in names]
        faster = median_speedup(case, ARTIFACT, BASELINE)
        table.add_row(
            f"latency {size_label(case.sizes)}",
            *cells[:2],
            shown(f"{cells[2]} (×{faster:.1f})", "bold"),
        )
    sizes = [record.engine(n).bytes or 0 for n in (BASELINE, ARTIFACT)]
    megabytes = [f"{size / 1e6:.1f} MB" for size in sizes]
    table.add_row("file size", "-", megabytes[0], f"{megabytes[1]} ({sizes[1] / sizes[0]:.0%})")
    near = [found.sentences[n] for n in (BASELINE, ARTIFACT)]
    table.add_row("cosine of the pooled embedding", "1", *(f"{f.cosine:.4f}" for f in near))
    table.add_row(
        f"top-{near[0].top} retrieval overlap", "100%", *(f"{f.overlap:.1%}" for f in near)
    )
    rounds = record.plan.rounds * record.plan.bouts
    table.caption = (
        f"{near[0].sentences} real sentences; {rounds} interleaved rounds, every engine in a "
        f"process of its own; × against {HEADS[1]}"
    )
    return table


def main(
    rounds: Annotated[int, typer.Option(min=1, help="Rounds per shape.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="Threads of every engine.")] = 2,
    out: Annotated[Path, typer.Option("-o", "--out", help="Where the artifact goes.")] = Path(
        "out/minilm-int8"
    ),
) -> None:
    """Build the MiniLM sentence encoder, and compare the artifact with the original."""
    plan = Plan(threads=[threads], bouts=1, rounds=rounds)
    with listening() as listener:
        found = encoders.measure([RECIPE], (EAGER, BASELINE), plan, listener, keep={RECIPE: out})
    console.print(summary(found))
    console.print(f"The artifact is in {out}; look into it with: strop inspect {out}")


if __name__ == "__main__":
    typer.run(main)
