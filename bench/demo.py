"""``make demo``: build MiniLM with ``cpu-int8`` and show what that gains and costs.

``python -m strop.bench.demo``
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from strop.bench.duel import BASELINE, EAGER, duel
from strop.bench.figures import Spread, console

RECIPE = "cpu-int8"
ARTIFACT = f"strop {RECIPE}"


def summary(found: dict[str, Any]) -> Table:
    """Original against artifact: one column an engine, one row a quantity."""
    names = [EAGER, BASELINE, ARTIFACT]
    table = Table("MiniLM-L6, 22.7 million weights", *names, title_justify="left")
    for shape, timings in found["timings"].items():
        medians = [Spread(**timings[n]["milliseconds"]).median for n in names]
        faster = medians[1] / medians[2]
        cells = [f"{ms:.2f} ms" for ms in medians]
        table.add_row(f"latency {shape}", *cells[:2], f"[bold]{cells[2]}[/bold] (×{faster:.1f})")
    sizes = found["bytes"]
    share = sizes[ARTIFACT] / sizes[BASELINE]
    table.add_row(
        "file size",
        "-",
        f"{sizes[BASELINE] / 1e6:.1f} MB",
        f"{sizes[ARTIFACT] / 1e6:.1f} MB ({share:.0%})",
    )
    near = [found["fidelity"][n] for n in names[1:]]
    cosines = [f"{f['cosine']:.4f}" for f in near]
    table.add_row("cosine of the pooled embedding", "1", *cosines)
    overlaps = [f"{f['overlap']:.1%}" for f in near]
    table.add_row(f"top-{near[0]['top']} retrieval overlap", "100%", *overlaps)
    table.caption = (
        f"{near[0]['sentences']} real sentences; {found['rounds']} interleaved rounds, every "
        f"engine in a process of its own; × against {BASELINE}"
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
    console.print(summary(duel([RECIPE], rounds, threads, keep={RECIPE: out})))
    console.print(f"The artifact is in {out}; look into it with: strop inspect {out}")


if __name__ == "__main__":
    typer.run(main)
