"""Launch plans beside the programs that they were made of: Triton's interpreter runs them, no GPU.

``python -m strop.bench.measures.plan_fidelity [--only NAME]`` takes MiniLM with its real weights
and the models of the zoo through the recipes for Triton, and runs each plan on the model's example
and at the smallest sizes. What kernels, launches and memory change shows against the program behind
the same passes, run by torch; what quantization changes does not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from strop.bench.models.minilm import make as minilm
from strop.bench.models.zoo import ZOO
from strop.bench.processes.spawned import isolated
from strop.bench.records.figures import RESULTS, Figure, ResultsFolder, show_and_save
from strop.bench.records.machine import environment
from strop.compiler import Model
from strop.compiler.frontend.coverage import smallest_sizes
from strop.compiler.frontend.export.capture import capture
from strop.compiler.frontend.inputs import Signature, read_inputs, resize
from strop.compiler.ir.program import Program
from strop.compiler.ir.running import Inputs
from strop.compiler.recipes.loading import load_recipe
from strop.compiler.rewriting.context import Context
from strop.compiler.rewriting.passes import Pipeline
from strop.compiler.targets.target import get_target
from strop.compiler.util.errors import UnsupportedError

TARGET = "triton:sm90"
MODELS: Mapping[str, Callable[[], Model]] = {
    "MiniLM": minilm,
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


def behind(program: Program, recipe: str, without: str) -> Program:
    """A captured program behind the passes of a recipe, but one."""
    pipeline = load_recipe(recipe).pipeline().within(Context(target=get_target(TARGET)))
    kept = tuple(step for step in pipeline.steps if step.name != without)
    return Pipeline(kept).taught_by(program).run(program)


def errors(name: str) -> dict[str, Any]:
    """By way the largest error of any output, and how many steps are kernels; or why there is none.

    For a process of its own: Triton becomes an interpreter in it.
    """
    os.environ["TRITON_INTERPRET"] = "1"
    model = MODELS[name]()
    signature, example, _ = read_inputs(model)
    with torch.no_grad():
        program = capture(model.module, signature, example)
    found: dict[str, Any] = {}
    for way, (recipe, without, _) in WAYS.items():
        try:
            found[way] = _compared(behind(program, recipe, without), signature, example)
        except UnsupportedError as refused:
            found[way] = {"refused": str(refused)}
    return found


def _compared(program: Program, signature: Signature, example: Inputs) -> dict[str, Any]:
    from strop.bench.harness.interpreted import interpreted
    from strop.compiler.targets.triton.plan import DTYPES

    session = interpreted(program, TARGET)
    dtypes = {known.name: DTYPES[known.dtype] for known in session.plan.inputs}
    worst = 0.0
    for inputs in _at_sizes(signature, example):
        given = {name: inputs[name].to(dtype) for name, dtype in dtypes.items()}
        with torch.no_grad():
            wanted = program.run(**given)
        ours = session.run_tensors([session.given(name, given) for name in session.inputs])
        worst = max(worst, *(error(a, b) for a, b in zip(ours, wanted, strict=True)))
    kernels = sum(step.kind != "extern" for step in session.plan.steps)
    return {"error": worst, "kernels": kernels, "steps": len(session.plan.steps)}


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
    largest = float(other[finite].abs().max()) if finite.any() else 0.0
    return float((one - other)[finite].abs().max()) / largest if largest else float(one.any())


def figures(found: Mapping[str, Mapping[str, Any]]) -> list[Figure]:
    """The worst error of each way, and what is behind it."""
    stated = []
    for way, (_, _, most) in WAYS.items():
        seen = {name: ways[way]["error"] for name, ways in found.items() if "error" in ways[way]}
        if "MiniLM" in seen:
            stated.append(Figure(f"MiniLM, {way}: error", seen["MiniLM"], at_most=most))
        if seen:
            worst = max(seen.values())
            stated.append(Figure(f"{len(seen)} models, {way}: largest error", worst, at_most=most))
    refused = sum("refused" in ways[way] for ways in found.values() for way in WAYS)
    return [*stated, Figure("models and ways that were refused", refused)]


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
