"""The passes of the recipes for Triton targets on a small Llama; other tests build by them."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from kernel_programs import GPU
from triton_tools import run_plan

from strop.bench.harness.passes import behind
from strop.bench.models.zoo.library import LIBRARY
from strop.compiler.frontend.export.capture import capture
from strop.compiler.frontend.inputs import read_inputs
from strop.compiler.ir.program import Program
from strop.compiler.ir.running import Inputs
from strop.compiler.recipes.loading import load_recipe
from strop.compiler.util.arrays import to_array
from strop.compiler.util.numerics import row_cosine

strop = torch.ops.strop
# Operators round where kernels do, so that hardly a value moves from one step of int8 to the next.
TOLERANCE = {
    "w8a8 in float32": 1e-3,
    "triton-w8a8": 1e-3,
    "triton-fp16": 1e-2,
    "triton-w4a16": 1e-2,
}
INPUTS = {
    "input_ids": torch.tensor([[7, 8, 9, 10], [11, 12, 13, 14]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
}


@cache
def captured(dtype: torch.dtype = torch.float32, name: str = "llama") -> tuple[Program, Inputs]:
    """A small model of a dtype, and its example."""
    model = LIBRARY[name].make()
    model.module.to(dtype)
    signature, example, _ = read_inputs(model)
    with torch.no_grad():
        return capture(model.module, signature, example), example


def optimized(program: Program, recipe: str, *, without: str = "") -> Program:
    """The program behind all passes of a recipe, but one."""
    return behind(program, load_recipe(recipe), without)


@pytest.mark.parametrize(
    ("recipe", "layers"),
    [
        ("triton-fp16", {strop.fused_linear.default: 10, strop.gated_linear.default: 3}),
        (
            "triton-w8a8",
            {
                strop.linear_int8.default: 10,
                strop.gated_linear_int8.default: 3,
                strop.norm_int8.default: 7,
            },
        ),
        ("triton-w4a16", {strop.packed_linear.default: 16, strop.gated.default: 3}),
    ],
)
def test_a_llama_becomes_what_kernels_compute(
    recipe: str, layers: dict[torch._ops.OpOverload, int]
) -> None:
    program, _ = captured()
    made = optimized(program, recipe)
    assert {target: len(made.find(target)) for target in layers} == layers
    assert not made.find(torch.ops.aten.linear.default)
    assert load_recipe(recipe).target == GPU.name
    with torch.no_grad():
        (wanted,), (found,) = program.run(**INPUTS), made.run(**INPUTS)
    assert found.dtype == torch.float32
    least = load_recipe(recipe).budget.min_cosine
    assert least is not None
    assert row_cosine(*(to_array(x).astype("float64") for x in (wanted, found))) > least


@pytest.mark.slow
def test_a_model_in_float16_takes_the_same_kernels_as_one_in_float32() -> None:
    half = optimized(captured(torch.float16)[0], "triton-fp16")
    whole = optimized(captured()[0], "triton-fp16")
    for target in (strop.fused_linear.default, strop.gated_linear.default, strop.attention.default):
        assert len(half.find(target)) == len(whole.find(target))
    assert half.run(**INPUTS)[0].dtype == torch.float16


def test_groups_of_128_are_taken_where_they_divide_a_layer() -> None:
    steps = [s for s in load_recipe("triton-w4a16").pipeline().steps if s.run.quantizes]
    assert [step.run.options()["group"] for step in steps] == [128, 32]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert", "gpt2", "llama", "vit"])
@pytest.mark.parametrize("way", TOLERANCE)
def test_kernels_give_what_the_program_gives(name: str, way: str) -> None:
    program, example = captured(name=name)
    if way == "w8a8 in float32":
        made = optimized(program, "triton-w8a8", without="precision")
    else:
        made = optimized(program, way)
    found = run_plan(made, *example.values())
    with torch.no_grad():
        wanted = made.run(**example)
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).abs().max() <= TOLERANCE[way] * other.abs().max()
