"""Launch plans beside the programs that they were made of: Triton's interpreter runs them, no GPU.

``python -m strop.bench.measures.plan_fidelity [--only NAME]`` takes MiniLM with its real weights
and the models of the zoo through the recipes for Triton, and runs each plan on the model's example
and at the smallest sizes. What kernels, launches and memory change shows against the program behind
the same passes, run by torch; what quantization changes does not.

Outputs are compared, and every call by itself, on the values that the plan gave to it. With int8
they differ: a number that lies between two steps goes to either of them by the last digit of a sum,
and the layers behind it make more of that.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

import torch
import typer
from torch import Tensor
from torch.fx.node import Node

from strop.bench.harness.passes import behind, captured
from strop.bench.models.minilm import make as minilm
from strop.bench.models.zoo import ZOO
from strop.bench.processes.spawned import isolated
from strop.bench.records.figures import RESULTS, Figure, ResultsFolder, show_and_save
from strop.bench.records.machine import environment
from strop.compiler import Model
from strop.compiler.frontend.coverage import smallest_sizes
from strop.compiler.frontend.inputs import Signature, resize
from strop.compiler.ir.interpreter import interpret
from strop.compiler.ir.program import Program
from strop.compiler.ir.running import Inputs
from strop.compiler.recipes.loading import load_recipe
from strop.compiler.util.arrays import to_array
from strop.compiler.util.errors import UnsupportedError

TARGET = "triton:sm90"
ROWS, TOKENS = 2, 16


def _minilm() -> Model:
    """The first words of some sentences: the interpreter takes minutes for whole ones."""
    model = minilm()
    assert isinstance(model.example_inputs, dict)
    example = {name: ids[:ROWS, :TOKENS] for name, ids in model.example_inputs.items()}
    return replace(model, example_inputs=example)


MODELS: Mapping[str, Callable[[], Model]] = {
    "MiniLM": _minilm,
    **{name: entry.make for name, entry in ZOO.items()},
}
# By way: the recipe, the step that is left out, and the largest error that is wanted.
WAYS = {
    "fp16": ("triton-fp16", "", 1e-2),
    "w8a8": ("triton-w8a8", "", 1e-3),
    "w8a8 around float32": ("triton-w8a8", "precision", 1e-3),
    "w4a16": ("triton-w4a16", "", 1e-2),
}
# Seconds for one model; the interpreter takes most of them.
LONGEST = 1200.0


def errors(name: str) -> dict[str, Any]:
    """By way how far a model's plan is from its program; or why there is no plan.

    For a process of its own: Triton becomes an interpreter in it.
    """
    os.environ["TRITON_INTERPRET"] = "1"
    program, signature, example = captured(MODELS[name]())
    found: dict[str, Any] = {}
    for way, (recipe, without, _) in WAYS.items():
        try:
            made = behind(program, load_recipe(recipe), without)
            found[way] = asdict(compared(made, _at_sizes(signature, example)))
        except UnsupportedError as refused:
            found[way] = {"refused": str(refused)}
    return found


@dataclass
class Fidelity:
    """How far a plan is from its program; errors are shares of the largest magnitude.

    Attributes:
        outputs: the largest error of an output.
        calls: the largest error of floats that a call gives for the plan's own values.
        numbers: how many int8 numbers calls give.
        moved: how many of them are others than in the program.
        kernels: steps that are kernels.
        steps: all of them.
    """

    outputs: float = 0.0
    calls: float = 0.0
    numbers: int = 0
    moved: int = 0
    kernels: int = 0
    steps: int = 0

    def add(self, ours: Tensor, wanted: Tensor) -> None:
        """Count what a call gives."""
        if wanted.dtype == torch.int8:
            self.numbers += wanted.numel()
            self.moved += int((ours != wanted).sum())
        elif wanted.is_floating_point():
            self.calls = max(self.calls, error(ours, wanted))


def compared(program: Program, feeds: Iterable[Inputs]) -> Fidelity:
    """Run a program and its plan on several inputs."""
    from strop.bench.harness.interpreted import interpreted
    from strop.compiler.targets.triton.plan import DTYPES

    session = interpreted(program, TARGET)
    dtypes = {known.name: DTYPES[known.dtype] for known in session.plan.inputs}
    steps = session.plan.steps
    found = Fidelity(kernels=sum(step.kind != "extern" for step in steps), steps=len(steps))
    for inputs in feeds:
        given = {name: inputs[name].to(dtype) for name, dtype in dtypes.items()}
        values = session.values({name: to_array(tensor) for name, tensor in given.items()})
        made = {name: torch.from_numpy(array) for name, array in values.items()}
        with torch.no_grad():
            wanted = program.run(**given)
            by_call(program, given, made, found)
        ours = [made[name] for name in session.outputs]
        found.outputs = max(
            found.outputs, *(error(a, b) for a, b in zip(ours, wanted, strict=True))
        )
    return found


def by_call(program: Program, inputs: Inputs, made: Mapping[str, Tensor], found: Fidelity) -> None:
    """Compare what each call gives for the values that the plan gave to it."""

    def watch(node: Node, value: Any) -> None:
        ours = made.get(node.name)
        if node.op != "call_function" or ours is None or not isinstance(value, Tensor):
            return
        found.add(ours, value)
        value.copy_(ours)

    fed = [inputs[str(node.target)] for node in program.graph.find_nodes(op="placeholder")]
    interpret(program.graph, program.weights, fed, watch)


def _at_sizes(signature: Signature, example: Inputs) -> Iterator[Inputs]:
    yield example
    if signature.dims:
        yield resize(example, signature, smallest_sizes(signature))


def error(ours: Tensor, wanted: Tensor) -> float:
    """The largest difference over the largest magnitude; infinite where NaN or inf differ."""
    if ours.shape != wanted.shape or ours.dtype != wanted.dtype:
        return float("inf")
    one, other = ours.double(), wanted.double()
    finite = one.isfinite() & other.isfinite()
    if not torch.allclose(one[~finite], other[~finite], equal_nan=True):
        return float("inf")
    off = (one - other)[finite].abs()
    largest = float(other[finite].abs().max()) if off.numel() else 0.0
    return float(off.max()) / largest if largest else float(off.any())


def figures(found: Mapping[str, Mapping[str, Any]]) -> list[Figure]:
    """The worst of all models by way, and that of MiniLM."""
    stated: list[Figure] = []
    for way, (_, _, most) in WAYS.items():
        seen = {name: ways[way] for name, ways in found.items() if "outputs" in ways[way]}
        for label, kept in (
            ("MiniLM", [seen[name] for name in seen if name == "MiniLM"]),
            (f"{len(seen)} models", list(seen.values())),
        ):
            stated += _stated(f"{label}, {way}", kept, most) if kept else []
    refused = sum("refused" in ways[way] for ways in found.values() for way in WAYS)
    return [*stated, Figure("models and ways that were refused", refused)]


def _stated(what: str, kept: Sequence[Mapping[str, Any]], most: float) -> Iterator[Figure]:
    yield Figure(f"{what}: error of outputs", max(one["outputs"] for one in kept), at_most=most)
    yield Figure(f"{what}: error of a call", max(one["calls"] for one in kept), at_most=most)
    numbers = sum(one["numbers"] for one in kept)
    if numbers:
        moved = sum(one["moved"] for one in kept)
        yield Figure(f"{what}: share of int8 numbers that are others", moved / numbers)


def main(
    only: Annotated[list[str], typer.Option(help="Names of models; else all.")] = [],  # noqa: B006
    results: ResultsFolder = RESULTS,
) -> None:
    """Run the plans of models, and compare them with their programs."""
    place = environment()
    names: Sequence[str] = only or list(MODELS)
    found = {name: isolated(errors, name, timeout=LONGEST) for name in names}
    title = "launch plans beside their programs, interpreted"
    show_and_save("plan_fidelity", title, place, figures(found), found, results)


if __name__ == "__main__":
    typer.run(main)
