"""The recipes for decoders with caches: what they make of one, and its file against eager torch."""

from __future__ import annotations

from functools import cache

import decoders
import pytest
import torch
from cache_tools import file_of, run_shared, traced

from strop.compiler.frontend.model import Model
from strop.compiler.ir.program import Program
from strop.compiler.recipes.loading import load_recipe

strop = torch.ops.strop


@cache
def captured() -> tuple[Model, Program]:
    # Sizes of which groups of 32, and of 16 packed in bytes, are parts.
    model = decoders.make(layers=1, heads=4, kv_heads=2, head_size=16)
    return model, traced(model)


@pytest.mark.parametrize(("recipe", "bits"), [("cpu-llm-int4", 4), ("cpu-llm-int8", 8)])
def test_a_decoder_is_packed_and_runs_in_larger_buffers(recipe: str, bits: int) -> None:
    model, program = captured()
    program = load_recipe(recipe).pipeline().run(program)
    layers = program.find(strop.linear_nbits.default)
    # q, k and v; the way out; gate and up; down; the head.
    assert [node.args[-1] for node in layers] == [bits] * 5
    assert len(program.find(strop.cached_attention.default)) == 1
    session, file = file_of(program)
    products = [n for n in file.graph.all_nodes() if n.op_type == "MatMulNBits"]
    # Activations may be rounded to 8 bits: the fastest way.
    assert {n.attributes["accuracy_level"].as_int() for n in products} == {4}
    assert model.generation is not None and model.inputs_at is not None
    for sizes in ({"batch": 1, "seq": 1, "past": 9}, {"batch": 3, "seq": 5, "past": 0}):
        given = model.inputs_at(sizes)
        assert isinstance(given, dict)
        made = run_shared(session, given, model.generation.caches)
        with torch.no_grad():
            logits = program.run(**given)[0]
        error = (torch.tensor(made["logits"]) - logits).abs().max() / logits.abs().max()
        assert float(error) < 0.05


@pytest.mark.parametrize("recipe", ["cpu-llm-int4", "cpu-llm-int8"])
def test_a_tied_head_and_its_table_are_stored_once(recipe: str) -> None:
    _, program = captured()
    _, file = file_of(load_recipe(recipe).pipeline().run(program))
    stored = [name for name in file.graph.initializers if name.startswith("embedding.weight")]
    whole = recipe.rpartition("-")[2]
    assert sorted(name.rpartition(".")[2] for name in stored) == [whole, "scales"]
