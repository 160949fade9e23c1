"""Build time of Llamas of growing depth, against capture's own time and ``torch.onnx.export``.

``python -m strop.bench.build_scaling``; every depth is measured in a process of its own.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from strop.bench.figures import RESULTS, Figure, console, save, show
from strop.bench.launch import measured_apart
from strop.bench.machine import environment
from strop.compiler.util.shown import shown
from strop.compiler.util.terminal import Table

LAYERS = (8, 16, 32, 64)
# The depth at which the figures are taken, and the one whose export is timed too.
AT = 32
# Builds of one depth; the one that took least time counts: a neighbour can only add to it.
REPEATS = 2
# Stages after capture that make the artifact; the check is reported by itself.
BUILDING = ("passes", "lower", "write")
CHECKING = ("reference", "check passes", "check")


def measure(layers: int, recipe: str, export: bool) -> dict[str, Any]:
    """Seconds of the faster of two builds, after a small one that loads everything."""
    from strop.bench.llama import SMALL, model
    from strop.compiler import build

    with tempfile.TemporaryDirectory() as folder:
        build(model(2, SMALL), Path(folder) / "warm-up", recipe)
        records = []
        for _ in range(REPEATS):
            artifact = build(model(layers, SMALL), Path(folder) / "artifact", recipe)
            records.append(json.loads((artifact.path / "build.json").read_text()))
        record = min(records, key=lambda r: sum(r["seconds"].values()))
        stages = record["seconds"]
        found = {
            "capture": stages["capture"],
            "strop": sum(stages.get(s, 0.0) for s in BUILDING),
            "check": sum(stages.get(s, 0.0) for s in CHECKING),
            "stages": stages,
            "passes": record["pass_seconds"],
            "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        }
        if export:
            path = Path(folder) / "exported.onnx"
            _export_seconds(2, path)
            repeats = [_export_seconds(layers, path) for _ in range(REPEATS)]
            found |= min(repeats, key=lambda times: times["torch_onnx_after_capture"])
    return found


def _export_seconds(layers: int, path: Path) -> dict[str, float]:
    """What ``torch.onnx.export`` takes for the same model, before and after capture."""
    import torch

    from strop.bench.llama import SMALL, model

    made = model(layers, SMALL)
    assert isinstance(made.example_inputs, Mapping) and made.dynamic is not None
    dims = {
        n: torch.export.Dim(n, min=low, max=high)
        for axes in made.dynamic.values()
        for n, low, high in (a for a in axes.values() if not isinstance(a, str))
    }
    shapes = {
        n: {axis: dims[spec[0]] for axis, spec in axes.items()} for n, axes in made.dynamic.items()
    }
    # It warns of every torchvision operator that is not there.
    logging.getLogger("torch.onnx._internal.exporter").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        start = time.perf_counter()
        exported = torch.export.export(
            made.module, (), dict(made.example_inputs), dynamic_shapes=shapes, strict=False
        )
        captured = time.perf_counter()
        torch.onnx.export(exported, f=str(path), dynamo=True, verbose=False, external_data=False)
        end = time.perf_counter()
    return {"torch_export": captured - start, "torch_onnx_after_capture": end - captured}


def judge(runs: Mapping[int, Mapping[str, Any]]) -> list[Figure]:
    """Hold the times to the figures."""
    figures = []
    if AT in runs:
        at = runs[AT]
        ratio = at["strop"] / at["capture"]
        figures.append(Figure(f"{AT} layers: strop / capture", ratio, at_most=1.0))
        if "torch_onnx_after_capture" in at:
            ratio = at["strop"] / at["torch_onnx_after_capture"]
            figures.append(Figure(f"{AT} layers: strop / torch.onnx", ratio, at_most=0.2))
    for layers in runs:
        if 2 * layers in runs:
            growth = runs[2 * layers]["strop"] / runs[layers]["strop"]
            what = f"strop, {2 * layers} layers / {layers} layers"
            figures.append(Figure(what, growth, at_most=2.2))
    return figures


def print_table(runs: Mapping[int, Mapping[str, Any]]) -> None:
    """One row a depth, in seconds."""
    names = ("passes", "lower", "write")
    table = Table(
        "layers", "capture", "strop", *names, "check", "torch.onnx", "peak GB",
        title="seconds",
    )  # fmt: skip
    for layers, run in runs.items():
        other = run.get("torch_onnx_after_capture")
        table.add_row(
            str(layers),
            f"{run['capture']:.2f}",
            shown(f"{run['strop']:.2f}", "bold"),
            *(f"{run['stages'].get(n, 0.0):.2f}" for n in names),
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
    results: Annotated[Path, typer.Option(help="Folder for the JSON.")] = RESULTS,
    one: Annotated[int, typer.Option(hidden=True)] = 0,
) -> None:
    """Build Llamas of several depths and compare the build time with its bounds."""
    if one:
        sys.stdout.write(json.dumps(measure(one, recipe, export)))
        return
    runs: dict[int, Any] = {}
    place = environment()
    with console.status("") as status:
        for depth in layers or LAYERS:
            status.update(f"{depth} layers")
            exported = "--export" if export and depth == AT else "--no-export"
            options = ("--one", str(depth), "--recipe", recipe, exported)
            runs[depth] = measured_apart("strop.bench.build_scaling", *options)
    print_table(runs)
    figures = judge(runs)
    show(figures, "build time after capture")
    save("build_scaling", place, figures, {"recipe": recipe, "runs": runs}, results)


if __name__ == "__main__":
    typer.run(main)
