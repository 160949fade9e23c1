"""What a sweep over the layers costs: encoders of 6, 12 and 24 layers, in calibration passes.

``python -m strop.bench.measures.sensitivity`` finds the cost of every layer that can be quantized,
by the outputs and by gradients, and compares the time with one pass over the same batches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
import typer

from strop.bench.records.figures import RESULTS, Figure, ResultsFolder, console, show_and_save
from strop.bench.records.machine import environment
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Context

LAYERS = (6, 12, 24)
WIDTH, HEADS, INNER = 384, 12, 1536
ROWS, LENGTH, VOCABULARY = 8, 64, 1000


@dataclass(frozen=True)
class Took:
    """Seconds, each the least of several.

    Attributes:
        quantizable: how many layers the sweeps looked at.
        calibration: one pass over the batches, with every value looked at.
        output: the sweep that runs the program with each layer quantized.
        gradient: the sweep that estimates by derivatives.
    """

    quantizable: int
    calibration: float
    output: float
    gradient: float

    def passes(self, sweep: float) -> float:
        """Calibration passes per layer."""
        return sweep / self.calibration / self.quantizable


def encoder(layers: int) -> Program:
    """A random BERT encoder of the size of MiniLM, as passes that quantize see it."""
    import transformers

    from strop.compiler import Model
    from strop.compiler.frontend.export.capture import capture
    from strop.compiler.frontend.inputs import read_inputs
    from strop.compiler.recipes.loading import load_recipe
    from strop.compiler.rewriting.passes import run_step

    config = transformers.BertConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=layers,
        num_attention_heads=HEADS, intermediate_size=INNER,
    )  # fmt: skip
    torch.manual_seed(0)
    module = transformers.BertModel(config).eval()
    signature, example, _ = read_inputs(Model(module, batch()))
    with torch.no_grad():
        program = capture(module, signature, example)
    for step in load_recipe("cpu-int8").pipeline().steps:
        if step.name == "quantize":
            break
        program = run_step(step, program).program
    return program


def batch() -> dict[str, torch.Tensor]:
    """Random words, without padding."""
    ids = torch.randint(0, VOCABULARY, (ROWS, LENGTH))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def measure(layers: int, batches: int, rounds: int) -> Took:
    """Time the passes and the sweeps of one encoder."""
    from strop.passes.quantize.calibration import observe
    from strop.passes.quantize.control.scheme import Scheme
    from strop.passes.quantize.control.sensitivity import Method, Sweep
    from strop.passes.quantize.dynamic import QuantizeDynamic
    from strop.passes.quantize.observers import observers

    program = encoder(layers)
    context = Context(calibration=[batch() for _ in range(batches)])
    scheme = Scheme.of(QuantizeDynamic(), program, context)
    found = scheme.layers(program)
    values = program.find(torch.ops.aten.linear.default)
    make = observers("min-max", 100.0)

    def sweep(method: Method) -> Callable[[], object]:
        return lambda: Sweep(method, batches=batches).costs(program, scheme, found, context)

    def calibrate() -> int:
        return observe(program, [(value, make()) for value in values], context, batches)

    runs = [calibrate, sweep("output"), sweep("gradient")]
    return Took(len(found), *least(runs, rounds))


def least(runs: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """The least of several times of each, in seconds; in rounds, in which one follows the other."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, took in zip(runs, times):
            begun = time.perf_counter()
            run()
            took.append(time.perf_counter() - begun)
    return [min(took) for took in times]


def main(
    batches: Annotated[int, typer.Option(min=1, help="Calibration batches.")] = 4,
    rounds: Annotated[int, typer.Option(min=1, help="How often each is timed.")] = 2,
    results: ResultsFolder = RESULTS,
) -> None:
    """Time each encoder; compare 12 layers with the bound, and 24 with 12."""
    took = {}
    for layers in LAYERS:
        with console.status(f"{layers} layers"):
            took[layers] = measure(layers, batches, rounds)
    title = f"{batches} batches of {ROWS}x{LENGTH}"
    measured = {str(layers): vars(one) for layers, one in took.items()}
    machine = environment(torch.get_num_threads())
    show_and_save("sensitivity", title, machine, figures(took), measured, results)


def figures(took: dict[int, Took]) -> list[Figure]:
    """The bounds: at most three passes a layer, and no more of them for a deeper encoder."""
    at, twice = took[12], took[24]
    made = []
    for name in ("output", "gradient"):
        each = [one.passes(getattr(one, name)) for one in (at, twice)]
        made += [
            Figure(f"by {name}: calibration passes per layer, 12 layers", round(each[0], 3),
                   at_most=3),
            Figure(f"by {name}: those of 24 layers over those of 12", round(each[1] / each[0], 2),
                   at_most=1.25),
        ]  # fmt: skip
    growth = twice.gradient / at.gradient
    made.append(Figure("by gradient: seconds of 24 layers over those of 12", round(growth, 2),
                       at_most=2.5))  # fmt: skip
    return made


if __name__ == "__main__":
    typer.run(main)
