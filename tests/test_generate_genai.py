"""``genai_config.json``: onnxruntime-genai runs the files as they are, to the same tokens."""

from __future__ import annotations

import json

import numpy as np
import onnxruntime as ort
import pytest
from decoder_graphs import CONTEXT, HEADS, SIZE, VOCABULARY, called, empty, model_bytes

from strop.compiler.artifact.genai import genai_config
from strop.compiler.generate.generator import generate
from strop.compiler.generate.prepared import Opened
from strop.compiler.generate.settings import Settings
from strop.compiler.ir.contract import Contract, TensorSpec
from strop.compiler.targets.decoding import Start, names_of
from strop.compiler.targets.onnxruntime.bound import bound_decoder

HOW = called(eos=(), pad=0, bos=1, family="mistral")


def contract_of(how, heads=HEADS, size=SIZE):
    caches = [TensorSpec(name, "f32", ("batch", heads, "past", size)) for name in how.caches]
    present = [TensorSpec(n, "f32", ("batch", heads, "all", size)) for n in how.caches.values()]
    ids = TensorSpec(how.ids, "i64", ("batch", "seq"))
    scores = TensorSpec(how.logits, "f32", ("batch", 1, VOCABULARY))
    return Contract((ids, *caches), (scores, *present), ())


@pytest.mark.parametrize("shared", [True, False])
def test_the_real_package_makes_the_same_tokens(tmp_path, shared) -> None:
    genai = pytest.importorskip("onnxruntime_genai", reason="pip install 'strop[genai]'")
    (tmp_path / "model.onnx").write_bytes(model_bytes())
    settings = genai_config(HOW, shared, contract_of(HOW), "model.onnx")
    (tmp_path / "genai_config.json").write_text(json.dumps(settings))
    model = genai.Model(str(tmp_path))
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(max_length=24, batch_size=1)
    theirs = genai.Generator(model, parameters)
    theirs.append_tokens(np.array([[3, 4, 5, 6]], np.int32))
    while not theirs.is_done():
        theirs.generate_next_token()
    session = ort.InferenceSession(model_bytes(), providers=["CPUExecutionProvider"])
    names = names_of(HOW)
    ours = Opened(HOW, VOCABULARY, lambda f: bound_decoder(session, names, Start(empty()), shared))
    tokens = [token.id for token in generate(ours, [3, 4, 5, 6], Settings(max_new=20))]
    assert theirs.get_sequence(0)[4:].tolist() == tokens
    assert len(set(tokens)) > 2


def test_what_a_config_says() -> None:
    how = called(eos=(2, 7), pad=3, bos=1, family="qwen3", sizes={"hidden_size": 99})
    found = genai_config(how, True, contract_of(how), "model.onnx")
    assert found == {
        "model": {
            "bos_token_id": 1,
            "context_length": CONTEXT,
            "decoder": {
                "filename": "model.onnx",
                "head_size": SIZE,
                "hidden_size": 99,
                "inputs": {
                    "attention_mask": "attention_mask",
                    "input_ids": "input_ids",
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "num_attention_heads": HEADS,
                "num_hidden_layers": 1,
                "num_key_value_heads": HEADS,
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
            },
            "eos_token_id": [2, 7],
            "pad_token_id": 3,
            "type": "qwen3",
            "vocab_size": VOCABULARY,
        },
        "search": {"max_length": CONTEXT, "past_present_share_buffer": True},
    }


def test_prompts_have_a_file_of_their_own_where_there_is_one() -> None:
    found = genai_config(HOW, True, contract_of(HOW), "model.onnx", "prefill.onnx")["model"]
    assert found["type"] == "decoder-pipeline"
    assert "filename" not in found["decoder"]
    (first, later) = found["decoder"]["pipeline"]
    assert first["prefill"]["filename"] == "prefill.onnx"
    assert (first["prefill"]["run_on_prompt"], first["prefill"]["run_on_token_gen"]) == (
        True,
        False,
    )
    assert later["decode"]["filename"] == "model.onnx"
    assert (later["decode"]["run_on_prompt"], later["decode"]["run_on_token_gen"]) == (False, True)
    for stage in (first["prefill"], later["decode"]):
        assert stage["inputs"] == [spec.name for spec in contract_of(HOW).inputs]
        assert stage["outputs"] == [spec.name for spec in contract_of(HOW).outputs]


@pytest.mark.parametrize(
    "family, kind", [("gemma3", "gemma3_text"), ("gpt2", "llama"), ("", "llama"), ("phi", "phi")]
)
def test_families_have_the_names_of_the_package(family, kind) -> None:
    how = called(family=family)
    assert genai_config(how, True, contract_of(how), "x")["model"]["type"] == kind


def test_no_first_token_is_named_where_there_is_none() -> None:
    found = genai_config(called(), True, contract_of(called()), "x")
    assert "bos_token_id" not in found["model"]


def with_caches(*names):
    return called(caches={name: f"new.{name}" for name in names})


@pytest.mark.parametrize(
    "how",
    [
        called(cross={"cross.0.key": "cross.0.key"}),
        with_caches("a.0.key"),
        with_caches("key", "value"),
        with_caches("a.0.key", "a.0.value", "a.2.key", "a.2.value"),
        with_caches("a.0.key", "a.0.value", "b.1.key", "b.1.value"),
        called(caches={"a.0.key": "new", "a.0.value": "old"}),
    ],
)
def test_what_the_package_cannot_be_told_has_no_config(how) -> None:
    assert genai_config(how, True, contract_of(how), "model.onnx") is None


def test_only_the_first_number_of_a_name_is_that_of_the_layer() -> None:
    how = with_caches("a.0.0", "b.0.0", "a.1.0", "b.1.0")
    found = genai_config(how, True, contract_of(how), "model.onnx")["model"]["decoder"]
    assert found["inputs"]["past_key_names"] == "a.%d.0"
    assert found["num_hidden_layers"] == 2


def test_layers_of_unequal_caches_have_no_config() -> None:
    how = with_caches("a.0.key", "a.0.value")
    whole = contract_of(how)
    other = TensorSpec("a.0.value", "f32", ("batch", HEADS, "past", SIZE + 1))
    inputs = (*whole.inputs[:-1], other)
    assert genai_config(how, True, Contract(inputs, whole.outputs, ()), "x") is None
    assert genai_config(how, True, whole, "x") is not None
