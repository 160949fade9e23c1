"""What the dependency analysis of pruning takes: Llamas of 8, 16 and 32 layers.

``python -m strop.bench.measures.dependency`` captures each, and times the analysis alone.
"""

from __future__ import annotations

import time
from typing import Annotated

import typer

from strop.bench.models.llama import SMALL, model
from strop.bench.records.figures import RESULTS, Figure, ResultsFolder, console, show_and_save
from strop.bench.records.machine import environment

LAYERS = (8, 16, 32)


def seconds(layers: int, rounds: int) -> float:
    """The least time of the analysis of one model, with its groups."""
    from strop.compiler.frontend.export.capture import capture
    from strop.compiler.frontend.inputs import read_inputs
    from strop.passes.prune.dependency import dependencies
    from strop.passes.prune.groups import groups

    one = model(layers, SMALL)
    signature, example, _ = read_inputs(one)
    program = capture(one.module, signature, example)
    times = []
    for _ in range(rounds):
        begun = time.perf_counter()
        groups(dependencies(program))
        times.append(time.perf_counter() - begun)
    return min(times)


def main(
    rounds: Annotated[int, typer.Option(min=1, help="How often each is timed.")] = 5,
    results: ResultsFolder = RESULTS,
) -> None:
    """Time each, and compare what a layer more costs at both ends."""
    took = {}
    for layers in LAYERS:
        with console.status(f"{layers} layers"):
            took[layers] = seconds(layers, rounds)
    a_layer = [(took[b] - took[a]) / (b - a) for a, b in zip(LAYERS, LAYERS[1:])]
    figures = [
        Figure("seconds for 32 layers", round(took[32], 3), at_most=2),
        Figure("cost of a layer at 16 to 32 over 8 to 16", round(a_layer[1] / a_layer[0], 2),
               at_most=1.5),
    ]  # fmt: skip
    measured = {str(layers): took[layers] for layers in LAYERS}
    show_and_save("dependency", "dependency analysis", environment(), figures, measured, results)


if __name__ == "__main__":
    typer.run(main)
