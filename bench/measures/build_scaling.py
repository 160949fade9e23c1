"""Build time of Llamas of growing depth, against capture's own time and ``torch.onnx.export``.

``python -m strop.bench.measures.build_scaling``; every depth is measured in a new process.
"""

from __future__ import annotations

import json
import logging
import resource
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from strop.bench.processes.spawned import isolated
from strop.bench.records.figures import RESULTS, Figure, ResultsFolder, console, show_and_save
from strop.bench.records.machine import environment
from strop.compiler.util.shown import shown
from strop.compiler.util.terminal import Table

LAYERS = (8, 16, 32, 64)
# The depth at which the figures are taken, and the only one that torch.onnx exports too.
AT = 32
# Builds of one depth. The fastest counts: other programs on the machine can only add to a time.
REPEATS = 2
# Stages after capture that make the artifact, and those that check it.
BUILDING = ("passes", "lower", "write")
CHECKING = ("reference", "check passes", "check")
# Seconds after which a depth is given up.
TIMEOUT = 3600.0
Run = Mapping[str, Any]


def measure(layers: int, recipe: str, export: bool) -> Run:
    """Seconds and memory of one depth in this process, after a small build has imported all."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = _build_times(layers, recipe, folder)
        return found | (_export_times(layers, folder) if export else {})


def _build_times(layers: int, recipe: str, folder: Path) -> dict[str, Any]:
    """Of the fastest build."""
    from strop.bench.models.llama import SMALL, model
    from strop.compiler import build

    build(model(2, SMALL), folder / "warm-up", recipe)
    records = []
    for _ in range(REPEATS):
        artifact = build(model(layers, SMALL), folder / "artifact", recipe)
        records.append(json.loads((artifact.path / "build.json").read_text()))
    record = min(records, key=lambda r: sum(r["seconds"].values()))
    stages = record["seconds"]
    return {
        "capture": stages["capture"],
        "strop": sum(stages.get(s, 0.0) for s in BUILDING),
        "check": sum(stages.get(s, 0.0) for s in CHECKING),
        "stages": stages,
        "passes": record["pass_seconds"],
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }


def _export_times(layers: int, folder: Path) -> dict[str, float]:
    """Of the fastest export, after a small one."""
    path = folder / "exported.onnx"
    _export_seconds(2, path)
    repeats = [_export_seconds(layers, path) for _ in range(REPEATS)]
    return min(repeats, key=lambda times: times["torch_onnx_after_capture"])


def _export_seconds(layers: int, path: Path) -> dict[str, float]:
    """Seconds of ``torch.export`` and of ``torch.onnx.export`` for the same model."""
    import torch

    from strop.bench.harness.exports import named_shapes
    from strop.bench.models.llama import SMALL, model
    from strop.compiler.frontend.inputs import read_inputs

    made = model(layers, SMALL)
    signature, example, _ = read_inputs(made)
    shapes = named_shapes(signature)
    # It warns of every torchvision operator that is not there.
    logging.getLogger("torch.onnx._internal.exporter").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        start = time.perf_counter()
        exported = torch.export.export(
            made.module, (), dict(example), dynamic_shapes=shapes, strict=False
        )
        captured = time.perf_counter()
        torch.onnx.export(exported, f=str(path), dynamo=True, verbose=False, external_data=False)
        end = time.perf_counter()
    return {"torch_export": captured - start, "torch_onnx_after_capture": end - captured}


def judge(runs: Mapping[int, Run]) -> Iterator[Figure]:
    """The figures of all depths."""
    if AT in runs:
        run = runs[AT]
        strop = run["strop"]
        yield Figure(f"{AT} layers: strop / capture", strop / run["capture"], at_most=1.0)
        if other := run.get("torch_onnx_after_capture"):
            yield Figure(f"{AT} layers: strop / torch.onnx", strop / other, at_most=0.2)
    for layers in runs:
        if 2 * layers in runs:
            growth = runs[2 * layers]["strop"] / runs[layers]["strop"]
            yield Figure(f"strop, {2 * layers} layers / {layers} layers", growth, at_most=2.2)


def print_table(runs: Mapping[int, Run]) -> None:
    """One row for each depth, in seconds; and the slowest passes of the deepest."""
    table = Table(
        "layers", "capture", "strop", *BUILDING, "check", "torch.onnx", "peak GB",
        title="seconds",
    )  # fmt: skip
    for layers, run in runs.items():
        other = run.get("torch_onnx_after_capture")
        table.add_row(
            str(layers),
            f"{run['capture']:.2f}",
            shown(f"{run['strop']:.2f}", "bold"),
            *(f"{run['stages'].get(n, 0.0):.2f}" for n in BUILDING),
            f"{run['check']:.2f}",
            f"{other:.2f}" if other else "-",
            f"{run['peak_gb']:.2f}",
        )
    console.print(table)
    deepest = runs[max(runs)]["passes"]
    slow = sorted(deepest.items(), key=lambda item: -item[1])[:6]
    console.print("slowest passes: " + ", ".join(f"{name} {s:.2f} s" for name, s in slow))


def main(
    layers: Annotated[list[int] | None, typer.Option(help="A depth; repeatable.")] = None,
    recipe: Annotated[str, typer.Option(help="The recipe to build with.")] = "cpu-fp32",
    export: Annotated[bool, typer.Option(help=f"Time torch.onnx.export at {AT} layers.")] = True,
    results: ResultsFolder = RESULTS,
) -> None:
    """Build Llamas of several depths, and compare the build times with their bounds."""
    place, runs = environment(), {}
    with console.status("") as status:
        for depth in layers or LAYERS:
            status.update(f"{depth} layers")
            exported = export and depth == AT
            runs[depth] = isolated(measure, depth, recipe, exported, timeout=TIMEOUT)
    print_table(runs)
    measured = {"recipe": recipe, "runs": runs}
    title = "build time after capture"
    show_and_save("build_scaling", title, place, list(judge(runs)), measured, results)


if __name__ == "__main__":
    typer.run(main)
