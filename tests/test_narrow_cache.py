"""Caches in float16: the pass ``precision``, the file, and builds for CUDA."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import decoders
import numpy as np
import pytest
import torch
from cache_tools import file_of, run_shared
from program_tools import body
from test_cached_attention import CACHES, PADDINGS, SIZES, Call, by_name, operators
from test_quantized_cache import Int8Call

from strop.compiler import build
from strop.compiler.check.comparable import in_own_dtypes
from strop.compiler.ir.contract import Stored
from strop.compiler.ir.program import Program
from strop.compiler.ir.running import in_contract, run_program
from strop.compiler.ir.stale import verify_types
from strop.compiler.targets.target import CUDA
from strop.passes.precision.precision import Precision

# Steps of float16 between numbers from 1 to 2; results here are a few apart.
STEP = torch.finfo(torch.float16).eps


def narrowed(call: Call) -> Program:
    program = Precision().run(call.program()).program
    verify_types(program)
    return program


@pytest.mark.parametrize("packed", [True, False])
def test_caches_come_and_go_in_float16_without_casts(packed: bool) -> None:
    call = Call(packed=packed)
    program, before = narrowed(call), call.program()
    for new, old in zip(
        (*program.contract.inputs, *program.contract.outputs),
        (*before.contract.inputs, *before.contract.outputs),
    ):
        cache = new.name in CACHES or new.name in CACHES.values()
        assert new == (replace(old, dtype="f16", stored=Stored("f32")) if cache else old)
    text = body(program)
    assert "%past_k, %past_v" in text
    assert text.count("aten.to.dtype") == 4  # of q, k and v, and of the result


def test_numbers_are_those_of_float32_but_for_rounding() -> None:
    call = Call(window=3)
    program = narrowed(call)
    given = call.inputs(2, 4, 5)
    found = run_program(program, given)
    assert found["present_k"].dtype == np.float16
    for name, want in run_program(call.program(), given).items():
        got = in_own_dtypes(found, program.contract)[name]
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=0, atol=8 * STEP * max(abs(want).max(), 1))


def test_the_file_runs_in_larger_buffers_as_in_torch() -> None:
    call = Call(window=3)
    program = narrowed(call)
    session, model = file_of(program, CUDA)
    assert "GroupQueryAttention" in operators(model)
    assert model.meta["strop.shared_caches"] == set(CACHES)
    for sizes, padding in zip(SIZES, PADDINGS):
        given = call.inputs(*sizes, padding)
        taken = in_contract(given, program.contract)
        want = run_program(program, given)
        for made in (by_name(session, taken), run_shared(session, taken, CACHES)):
            for name in CACHES.values():
                assert (made[name][:, :, : sum(sizes[1:])] == want[name]).all()
            got, expected = (torch.tensor(x["out"]) for x in (made, want))
            torch.testing.assert_close(got, expected, rtol=0, atol=8 * STEP)


def test_caches_in_int8_stay_as_they_are() -> None:
    program = Precision().run(Int8Call().program()).program
    assert program.contract == Int8Call().program().contract
    assert "f16" not in body(program)


def built(folder: Path, recipe: str, **budget: Any) -> Any:
    model = decoders.make(layers=1, heads=2, kv_heads=1, head_size=16)
    text = "".join(f"{name} = {value}\n" for name, value in budget.items())
    file = folder / "recipe.toml"
    file.write_text(f'name = "mine"\nextends = "{recipe}"\n\n[budget]\n{text}')
    return build(model, folder / "out", str(file)).manifest


@pytest.mark.slow
def test_a_decoder_for_cuda_keeps_its_caches_in_float16(tmp_path: Path) -> None:
    manifest = built(tmp_path, "cuda-fp16", min_cosine=0.999, min_token_agreement=0.95)
    caches = manifest["generation"]["caches"]
    specs = {spec["name"]: spec for spec in manifest["contract"]["inputs"]}
    assert all(specs[name]["dtype"] == "f16" for name in caches)
    assert manifest["generation"]["shared_buffers"]


def test_int4_for_cuda_is_a_recipe(tmp_path: Path) -> None:
    # The tiny decoder knows nothing: its tokens hang on the last digits.
    manifest = built(tmp_path, "cuda-llm-int4", min_token_agreement=0.1, max_perplexity=3.0)
    passes = {step["name"] for step in manifest["passes"] if step["modified"]}
    assert {"cached-attention", "quantize-weights", "precision"} <= passes
