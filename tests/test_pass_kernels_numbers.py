"""Whole models behind ``select-kernels`` give what they gave before it; so do random epilogues."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_programs import GPU, few_bits, fp8, int8, random, selected
from program_tools import program_of
from torch import Tensor

from strop.bench.models.zoo.library import LIBRARY
from strop.compiler.frontend.export.capture import capture
from strop.compiler.frontend.inputs import read_inputs
from strop.compiler.ir.program import Program
from strop.compiler.ir.running import Inputs
from strop.compiler.recipes.registry import make_pass
from strop.compiler.rewriting.context import Context
from strop.passes.kernels.layers import LAYERS

# The others go through the same rules.
MODELS = (
    "llama",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("bert", "gpt2", "vit")),
)
BEFORE = """
    complex dtypes noops cse masks constants embeddings linears norms activations rotary attention
    noops
""".split()  # noqa: SIM905
QUANTIZE = {
    "fp16": [],
    "w8a8": [("packed", {}), ("quantize", {"scales": "row", "embeddings": False})],
    "w4a16": [("packed", {}), ("quantize-weights", {"method": "nearest"})],
    "fp8": [("quantize-fp8", {})],
}


@cache
def captured(name: str) -> tuple[Program, Inputs]:
    """A small model of the zoo and its example."""
    signature, example, _ = read_inputs(model := LIBRARY[name].make())
    with torch.no_grad():
        return capture(model.module, signature, example), example


def prepared(name: str, scheme: str, *, narrow: bool) -> Program:
    """The program that ``select-kernels`` gets, in 16 bits if narrow."""
    steps = [*((step, {}) for step in BEFORE), *QUANTIZE[scheme], ("residuals", {})]
    program = captured(name)[0]
    for step, options in [*steps, *([("precision", {})] if narrow else []), ("cse", {})]:
        program = make_pass(step, options).run(program, context=Context(target=GPU)).program
    return program


def apart(before: Program, after: Program, example: Inputs) -> float:
    """The largest difference of an output, over its largest value."""
    with torch.no_grad():
        pairs = zip(before.run(**example), after.run(**example), strict=True)
        return max(float((b - a).abs().max() / b.abs().max()) for b, a in pairs)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("scheme", ["fp16", "w4a16"])
def test_models_in_16_bits_move_by_its_rounding(name: str, scheme: str) -> None:
    before = prepared(name, scheme, narrow=True)
    result = selected(before, dense="kernel")
    assert result.modified
    assert apart(before, result.program, captured(name)[1]) < 5e-3


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("scheme", ["w8a8", "fp8"])
def test_models_in_8_bits_move_by_the_rounding_of_sums_in_float32(name: str, scheme: str) -> None:
    # In 16 bits a value on the edge between two steps may take the other one: see below.
    before = prepared(name, scheme, narrow=False)
    result = selected(before)
    assert apart(before, result.program, captured(name)[1]) < 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_8_bits_behind_16_are_as_near_to_those_behind_float32_as_before(name: str) -> None:
    example = captured(name)[1]
    exact = prepared(name, "w8a8", narrow=False)
    before = prepared(name, "w8a8", narrow=True)
    after = selected(before).program
    assert apart(exact, after, example) < 1.5 * apart(exact, before, example) + 5e-3


@pytest.mark.parametrize("scheme", ["w8a8", "w4a16"])
def test_every_product_of_a_llama_runs_in_a_kernel(scheme: str) -> None:
    result = selected(prepared("llama", scheme, narrow=True))
    assert result.log.notes[-1].startswith("kernels run 100.0% of the multiply-adds")


# Steps of 8 bits are the same before and behind the pass where what is rounded is float32.
LINEARS: dict[str, tuple[Callable[..., Tensor], torch.dtype]] = {
    "float16": (F.linear, torch.float16),
    "int8": (int8, torch.float32),
    "4 bits": (lambda x, weight, bias: few_bits(x, weight.float(), 4, 2) + bias, torch.float16),
    "e4m3": (fp8, torch.float32),
}
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
}
EPILOGUES = st.lists(st.sampled_from([*ACTIVATIONS, "residual", "swapped"]), max_size=4)


@settings(max_examples=12)
@given(st.sampled_from(list(LINEARS)), EPILOGUES, st.booleans(), st.integers(0, 2**16))
def test_whatever_follows_a_product_is_computed_as_before(
    linear: str, epilogue: list[str], also: bool, seed: int
) -> None:
    product_of, dtype = LINEARS[linear]
    x, y = (random(2, 3, n, dtype=dtype, seed=seed + n) for n in (64, 8))

    def model(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        value = product = product_of(x, weight, bias)
        for one in epilogue:
            if one in ACTIVATIONS:
                value = ACTIVATIONS[one](value)
            else:
                value = value + y if one == "residual" else y + value
        return (value, product) if also else value

    weight, bias = random(8, 64, dtype=dtype, seed=seed) / 8, random(8, dtype=dtype, seed=seed)
    before = program_of(model, x, y, weight=weight, bias=bias)
    after = selected(before, dense="kernel").program
    assert len(after.find(*LAYERS)) == 1
    assert apart(before, after, {"input_0": x, "input_1": y}) < 5e-3
