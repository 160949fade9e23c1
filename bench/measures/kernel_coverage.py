"""How much of a Llama block and of MiniLM strop's kernels run, by recipe: nothing is run.

``python -m strop.bench.measures.kernel_coverage`` counts the multiply-adds, and the bytes that
calls read and write, weights among them, in programs behind all passes of a recipe; what torch runs
is the rest. The block has the proportions of Llama 3 8B at half its width, with its norms, rotary
embedding and a head for a few words. Counts are those of shapes, at several sizes of the dims.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import typer

from strop.bench.harness.passes import behind, captured
from strop.bench.models.llama import model as llama_model
from strop.bench.models.minilm import make as minilm
from strop.bench.records.figures import RESULTS, Figure, ResultsFolder, show_and_save
from strop.bench.records.machine import environment
from strop.compiler import Model
from strop.compiler.ir.program import Program
from strop.compiler.recipes.loading import asked_recipe
from strop.compiler.targets.target import get_target
from strop.passes.kernels.coverage import coverage, in_torch

WANTED = 0.95
HALF_OF_8B = {
    "hidden_size": 2048,
    "intermediate_size": 7168,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "vocab_size": 32,
}
# How numbers are chosen changes no count, and this way is the shortest.
NEAREST = [
    'quantize-weights.method="nearest"',
    'quantize-weights-narrow.method="nearest"',
]
RECIPES: dict[str, tuple[str, list[str]]] = {
    "fp16": ("triton-fp16", []),
    "fp16, plain products by torch": ("triton-fp16", ['select-kernels.dense="fused"']),
    "w8a8": ("triton-w8a8", []),
    "w4a16": ("triton-w4a16", NEAREST),
}
# Held to the bound: the second leaves products to torch on request.
HELD = ("fp16", "w8a8", "w4a16")
MODELS: dict[str, tuple[Callable[[], Model], list[dict[str, int]]]] = {
    "Llama block": (
        lambda: llama_model(1, HALF_OF_8B, longest=8192),
        [{"batch": 1, "seq": 2}, {"batch": 1, "seq": 128}, {"batch": 4, "seq": 2048}],
    ),
    "MiniLM": (minilm, [{"batch": 1, "seq": 16}, {"batch": 8, "seq": 128}]),
}


def measured(program: Program, sizes: list[dict[str, int]]) -> dict[str, dict[str, Any]]:
    """Shares by recipe and sizes, and what torch runs."""
    found: dict[str, dict[str, Any]] = {}
    for name, (recipe, settings) in RECIPES.items():
        made = behind(program, asked_recipe(recipe, settings))
        target = get_target("triton:sm90")
        at = {str(s): coverage(made, target, s) for s in sizes}
        found[name] = {
            "multiply_adds": {s: one.multiply_adds for s, one in at.items()},
            "bytes": {s: one.moved for s, one in at.items()},
            "torch": {str(node.target): why for node, why in in_torch(made, target).items()},
        }
    return found


def figures(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[Figure]:
    """The least share over the sizes, of each model by each recipe."""
    return [
        Figure(
            f"{model}, {recipe}: share of {what}",
            min(shares[key].values()),
            at_least=WANTED if recipe in HELD else None,
        )
        for model, by_recipe in found.items()
        for recipe, shares in by_recipe.items()
        for key, what in (("multiply_adds", "multiply-adds"), ("bytes", "bytes"))
    ]


def main(results: ResultsFolder = RESULTS) -> None:
    """Count, by model and recipe."""
    place = environment()
    found = {name: measured(captured(make())[0], sizes) for name, (make, sizes) in MODELS.items()}
    title = "what kernels run"
    show_and_save("kernel_coverage", title, place, figures(found), found, results)


if __name__ == "__main__":
    typer.run(main)
