"""Milliseconds of every emitter of every operator that has several, at several shapes.

``python -m strop.bench.measures.emitters`` measures them in default sessions of ONNX Runtime; with
``--ship`` it also writes the table that comes with strop, by which a lowering chooses.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from strop.bench.records.figures import RESULTS, ResultsFolder, console, save
from strop.bench.records.machine import environment
from strop.compiler.lower.choices import Milliseconds
from strop.compiler.lower.onnx import tune
from strop.compiler.targets.target import CPU
from strop.compiler.util.moving import Progress
from strop.compiler.util.shown import shown
from strop.compiler.util.terminal import Table

SHIPPED = Path(tune.__file__).with_name("measured_cpu.json")


def table(operator: str, emitters: Mapping[str, Mapping[str, float]]) -> Table:
    """Emitters by shape, in milliseconds; the fastest of each shape is bold."""
    shapes = list(next(iter(emitters.values())))
    best = {shape: min(times[shape] for times in emitters.values()) for shape in shapes}
    made = Table("ms", *shapes, title=operator)
    for name, times in emitters.items():
        fastest = {shape: times[shape] == best[shape] for shape in shapes}
        cells = (shown(f"{times[s]:.4g}", "bold" if fastest[s] else "") for s in shapes)
        made.add_row(name, *cells)
    return made


def measure() -> Milliseconds:
    """Times by operator, emitter and shape."""
    with Progress(console=console, refresh_per_second=1) as progress:
        task = progress.add_task("", total=None)
        return tune.measure(CPU, lambda what: progress.update(task, description=what))


def main(
    ship: Annotated[bool, typer.Option(help="Write the table that strop ships.")] = False,
    results: ResultsFolder = RESULTS,
) -> None:
    """Time the emitters of strop's operators on this machine."""
    place = environment()
    found = measure()
    for operator, emitters in found.items():
        console.print(table(operator, emitters))
    save("emitters", place, [], found, results)
    if ship:
        shipped = tune.describe_machine() | {"milliseconds": found}
        SHIPPED.write_text(json.dumps(shipped, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
