"""``python -m strop.bench.readme``: write the recorded figures and latencies into the README."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from strop.bench.figures import figures_of, results
from strop.bench.machine import machine
from strop.bench.record import Record
from strop.bench.tables import Grid, Row, latency, properties
from strop.bench.zoo_table import ROOT, replace_between


def figures_table(found: Sequence[Mapping[str, Any]]) -> str:
    """All figures as a Markdown table; a missed bound says so, and how fast the machine was."""
    rows = [
        Row([f.what, f"{f.value:.4g}", f.wanted, "" if f.hit else "**missed**", _speed(saved)])
        for saved in found
        for f in figures_of(saved)
    ]
    return Grid("", ("figure", "measured", "wanted", "", "GFLOP/s then"), rows).markdown()


def _speed(saved: Mapping[str, Any]) -> str:
    """What the machine gave in float32 when a result was measured, where that was looked at."""
    speed = saved["environment"].get("speed")
    return f"{speed['gemm_gflops']:.0f}" if speed else "–"


def latency_tables(found: Sequence[Mapping[str, Any]]) -> str:
    """The encoders' latency, fidelity and footprint; nothing if they are not on record."""
    duels = [saved["measured"]["record"] for saved in found if saved["name"] == "encoders"]
    records = [Record.model_validate(values) for values in duels]
    return "".join(
        f"\n\nMiniLM-L6, {grid.title}:\n\n{grid.markdown()}"
        for record in records
        for grid in (latency(record), properties(record))
    )


def main() -> None:
    """Replace the README's figures by those on record."""
    found = results()
    where = f"Measured on {machine(found[0]['environment'])}.\n\n"
    text = where + figures_table(found) + latency_tables(found)
    readme = ROOT / "README.md"
    readme.write_text(replace_between(readme.read_text(), "figures", text))


if __name__ == "__main__":
    main()
