"""Peak memory of calibrating on few and on many batches, each in a process of its own.

``python -m strop.bench.measures.calibration_memory``. The batches are drawn as they are asked for;
the observer is one that keeps histograms, and weights are compensated: what grows would be these.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import torch
import typer
from torch import nn

from strop.bench.processes.memory import watch
from strop.bench.records.figures import RESULTS, Figure, ResultsFolder, console, show_and_save
from strop.bench.records.machine import environment

COUNTS = (64, 1024)
ALLOWED = 1.05
_SHAPE = (8, 3, 64, 64)


def main(results: ResultsFolder = RESULTS, batches: int = typer.Option(0, hidden=True)) -> None:
    """Calibrate on each number of batches, and compare."""
    if batches:
        calibrate(batches)
        return
    peaks: dict[int, float] = {}
    for count in COUNTS:
        with console.status(f"calibrating on {count} batches"):
            module = "strop.bench.measures.calibration_memory"
            done = watch([sys.executable, "-m", module, "--batches", str(count)])
        if done.status:
            raise typer.Exit(done.status)
        peaks[count] = done.peak_gb
    few, many = COUNTS
    ratio = peaks[many] / peaks[few]
    figures = [Figure(f"memory of {many} batches over that of {few}", ratio, at_most=ALLOWED)]
    measured = {"peak_gb": {str(count): peak for count, peak in peaks.items()}}
    show_and_save("calibration_memory", "static int8", environment(), figures, measured, results)


def calibrate(count: int) -> None:
    """Quantize a small network on so many batches."""
    from strop.compiler import Model
    from strop.compiler.frontend.prepare import capture_model
    from strop.compiler.frontend.streams import stream
    from strop.compiler.rewriting.context import Context
    from strop.compiler.util.stages import Stages
    from strop.passes.quantize.static import QuantizeStatic

    def batches() -> Iterator[dict[str, torch.Tensor]]:
        generator = torch.Generator().manual_seed(0)
        return ({"input": torch.randn(_SHAPE, generator=generator)} for _ in range(count))

    layers = [nn.Conv2d(3, 32, 3, 2), nn.ReLU(), nn.Conv2d(32, 32, 3, groups=32), nn.ReLU6()]
    module = nn.Sequential(*layers, nn.Conv2d(32, 64, 1)).eval()
    model = Model(module, {"input": torch.randn(_SHAPE)}, calibration=[next(batches())])
    program = capture_model(model, Stages()).program
    by = QuantizeStatic(observer="entropy", batches=count)
    by.run(program, context=Context(calibration=stream(batches, ("input",), "calibration")))


if __name__ == "__main__":
    typer.run(main)
