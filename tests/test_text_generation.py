"""Folders of causal language models as decoders with caches, against transformers' ``generate``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from decoders import greedy
from folder_inputs import tokenizer
from folder_settings import GROUPED
from folder_tools import generated
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from strop.bench.models.tiny import tiny_config
from strop.compiler import Model
from strop.compiler.frontend.export.capture import capture
from strop.compiler.frontend.huggingface import TASKS, load_folder
from strop.compiler.frontend.inputs import read_inputs, resize
from strop.compiler.util.errors import UsageError

WINDOW = 6
# Those that people use most: the model type, and what its config has beside the usual sizes.
FAMILIES: dict[str, Mapping[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": WINDOW},
    "gpt2": {},
    "gemma2": {"sliding_window": WINDOW},
    "gemma3_text": {"sliding_window": WINDOW},
    "opt": {},
}
# Others, by the ways in which they differ: positions, masks, heads, experts, scales of scores.
MORE = (
    "bloom", "cohere", "cohere2", "deepseek_v3", "falcon", "gpt_bigcode", "gpt_neo", "gpt_neox",
    "gpt_oss", "gptj", "granite", "mixtral", "mpt", "olmo2", "olmoe", "phi", "phi3", "qwen2",
    "qwen3", "qwen3_moe", "smollm3", "stablelm", "starcoder2", "xglm",
)  # fmt: skip
# Prompts of one token, of seven, and three rows of which two are padded.
PROMPTS = {"one token": (1, 1, [0]), "seven": (1, 7, [0]), "padded rows": (3, 7, [0, 3, 6])}


def saved(folder: Path, family: str, **more: Any) -> Any:
    """A tiny random checkpoint of a model type; returns the module."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    config = tiny_config(CONFIG_MAPPING[family])
    for name, value in more.items():
        setattr(config, name, value)
    torch.manual_seed(0)
    module = getattr(transformers, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[family])(config).eval()
    for weight in module.parameters():
        if weight.dim() > 1:  # larger than usual, so that texts do not repeat one token
            torch.nn.init.normal_(weight, std=0.15)
    module.save_pretrained(folder)
    return module


def prompt(batch: int, length: int, padding: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(5, 60, (batch, length), generator=torch.Generator().manual_seed(2))
    mask = torch.arange(length)[None].ge(torch.tensor(padding)[:, None]).long()
    return ids, mask


def same_tokens(model: Model, original: Any, count: int = 12) -> None:
    for name, sizes in PROMPTS.items():
        ids, mask = prompt(*sizes)
        expected = generated(original, ids, mask, count)
        got = greedy(model.module, model, ids, mask, count)
        assert torch.equal(got, expected), name


def same_program(model: Model) -> None:
    """The captured program gives what the module gives, with and without a cache."""
    signature, example, _ = read_inputs(model)
    with torch.no_grad():
        program = capture(model.module, signature, example)
        for sizes in ((1, 1, 0), (2, 1, 9), (3, 4, 2)):
            inputs = resize(example, signature, dict(zip(("batch", "seq", "past"), sizes)))
            for got, expected in zip(program.run(**inputs), model.module(**inputs).values()):
                assert torch.allclose(got, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tokens_are_those_of_generate(family: str, tmp_path: Path) -> None:
    original = saved(tmp_path / "model", family, **FAMILIES[family])
    same_tokens(load_folder(f"{tmp_path / 'model'}#text-generation"), original)


@pytest.mark.slow
@pytest.mark.parametrize("family", MORE)
def test_other_families_give_the_tokens_of_generate(family: str, tmp_path: Path) -> None:
    original = saved(tmp_path / "model", family)
    model = load_folder(f"{tmp_path / 'model'}#text-generation")
    same_tokens(model, original)
    same_program(model)


@pytest.mark.parametrize(
    "family", ["llama", *(pytest.param(f, marks=pytest.mark.slow) for f in [*FAMILIES][1:])]
)
def test_the_captured_program_is_the_decoder(family: str, tmp_path: Path) -> None:
    saved(tmp_path / "model", family, **FAMILIES[family])
    same_program(load_folder(f"{tmp_path / 'model'}#text-generation"))


def test_the_contract_is_that_of_onnxruntime_genai(tmp_path: Path) -> None:
    saved(tmp_path / "model", "llama")
    tokenizer(tmp_path / "model")
    model = load_folder(f"{tmp_path / 'model'}#text-generation")
    called = model.generation
    assert called is not None
    assert list(called.caches.items())[:2] == [
        ("past_key_values.0.key", "present.0.key"),
        ("past_key_values.0.value", "present.0.value"),
    ]
    assert list(model.example_inputs) == ["input_ids", "attention_mask", *called.caches]
    assert (called.context, called.eos, called.pad, called.bos) == (64, (2,), 0, 1)
    assert called.family == "llama"
    assert called.sizes == {
        "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2,
        "head_size": 8, "hidden_size": 32, "vocab_size": 61,
    }  # fmt: skip
    assert model.dynamic["attention_mask"] == {0: "batch", 1: ("past + seq", 1, 64)}  # type: ignore[index]
    files = {path.name for path in model.files}
    assert files >= {"config.json", "generation_config.json", "tokenizer.json"}


def test_weights_keep_their_names_and_tied_ones_are_one(tmp_path: Path) -> None:
    original = saved(tmp_path / "model", "gpt2")
    model = load_folder(f"{tmp_path / 'model'}#text-generation")
    assert set(dict(model.module.named_parameters())) == set(dict(original.named_parameters()))
    signature, example, _ = read_inputs(model)
    with torch.no_grad():
        program = capture(model.module, signature, example)
    assert "lm_head.weight" in program.origins["transformer.wte.weight"].sources


def test_several_end_tokens_come_from_generation_config(tmp_path: Path) -> None:
    original = saved(tmp_path / "model", "llama")
    original.generation_config.eos_token_id = [2, 7]
    original.generation_config.save_pretrained(tmp_path / "model")
    called = load_folder(f"{tmp_path / 'model'}#text-generation").generation
    assert called is not None
    assert called.eos == (2, 7)


def test_a_stop_token_that_is_none_is_left_out_with_a_note(tmp_path: Path) -> None:
    original = saved(tmp_path / "model", "gpt2")
    original.generation_config.eos_token_id = [2, 50256]
    original.generation_config.save_pretrained(tmp_path / "model")
    model = load_folder(f"{tmp_path / 'model'}#text-generation")
    assert model.generation is not None
    assert model.generation.eos == (2,)
    assert any("50256" in note and "no token of the model" in note for note in model.notes)


def test_a_folder_without_a_tokenizer_is_built_with_a_note(tmp_path: Path) -> None:
    saved(tmp_path / "model", "llama")
    model = load_folder(f"{tmp_path / 'model'}#text-generation")
    assert any("there is no tokenizer in the folder" in note for note in model.notes)


def test_a_tokenizer_that_makes_few_tokens_of_texts_is_enough(tmp_path: Path) -> None:
    original = saved(tmp_path, "llama")
    whole = Tokenizer(WordLevel({"[UNK]": 3}, unk_token="[UNK]"))  # a text is one token
    transformers.PreTrainedTokenizerFast(tokenizer_object=whole, unk_token="[UNK]").save_pretrained(
        tmp_path
    )
    model = load_folder(f"{tmp_path}#text-generation")
    assert isinstance(model, Model)
    same_tokens(model, original)


def test_a_length_bounds_the_past_and_the_new_tokens_together(tmp_path: Path) -> None:
    saved(tmp_path / "model", "llama")
    folder = tmp_path / "model"
    model = load_folder(f"{folder}#text-generation,max-length=24")
    assert model.generation is not None
    assert model.generation.context == 24
    signature, example, _ = read_inputs(model)
    assert signature.sums == {("past", "seq"): 24}
    assert [(d.name, d.min, d.max) for d in signature.dims.values()] == [
        ("batch", 1, None), ("seq", 1, 24), ("past", 0, 23),
    ]  # fmt: skip
    with pytest.raises(UsageError, match="max-length is 65, but the model takes 64 at most"):
        load_folder(f"{folder}#text-generation,max-length=65")


@pytest.mark.parametrize("length", [2, 3, 5])
def test_a_very_short_context_has_examples(length: int, tmp_path: Path) -> None:
    saved(tmp_path / "model", "llama")
    model = load_folder(f"{tmp_path / 'model'}#text-generation,max-length={length}")
    read_inputs(model)


@pytest.mark.parametrize(
    ("family", "more", "said"),
    [
        ("mamba", {}, "MambaForCausalLM cannot be built with caches of keys and values"),
        ("rwkv", {}, "RwkvForCausalLM cannot be built with caches of keys and values"),
        ("qwen3_next", {}, "cannot be built with caches of keys and values"),
        (
            "llama4_text",
            {"layer_types": ["chunked_attention", "full_attention"], "attention_chunk_size": 4},
            "its attention sees other places than those before",
        ),
    ],
)
def test_what_keeps_other_things_is_refused(
    family: str, more: Mapping[str, Any], said: str, tmp_path: Path
) -> None:
    saved(tmp_path / "model", family, **more)
    with pytest.raises(UsageError, match=said):
        load_folder(f"{tmp_path / 'model'}#text-generation")


def test_an_empty_vocabulary_is_refused(tmp_path: Path) -> None:
    sizes = GROUPED | {"vocab_size": 0, "pad_token_id": None}
    module = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes))
    module.save_pretrained(tmp_path / "model")
    with pytest.raises(UsageError, match="its vocabulary is empty"):
        load_folder(f"{tmp_path / 'model'}#text-generation")


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_rotary_positions_that_change_with_the_length_are_those_of_short_texts(
    kind: str, tmp_path: Path
) -> None:
    factors = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2.0, 2.1, 2.2, 2.3]}
    of_kind = factors | {"original_max_position_embeddings": 32} if kind == "longrope" else {}
    rope = {"rope_type": kind, "rope_theta": 10_000.0, "factor": 2.0} | of_kind
    original = saved(tmp_path / "model", "llama", rope_parameters=rope)
    module = type(original).from_pretrained(tmp_path / "model").eval()
    model = load_folder(f"{tmp_path / 'model'}#text-generation")
    assert model.generation is not None
    assert model.generation.context == (32 if kind == "longrope" else 64)
    same_tokens(model, module)


def test_a_folder_without_a_task_scores_texts_as_before(tmp_path: Path) -> None:
    saved(tmp_path / "model", "llama")
    for task in ("", "#text-scoring"):
        model = load_folder(f"{tmp_path / 'model'}{task}")
        assert model.generation is None
        assert list(model.example_inputs) == ["input_ids", "attention_mask"]
    assert {"text-scoring", "text-generation"} <= set(TASKS)


def test_a_checkpoint_of_another_kind_has_no_head(tmp_path: Path) -> None:
    transformers.BertModel(transformers.BertConfig(**GROUPED)).save_pretrained(tmp_path / "model")
    values = json.loads((tmp_path / "model" / "config.json").read_text())
    assert values["architectures"] == ["BertModel"]
    with pytest.raises(UsageError, match="lacks weights"):
        load_folder(f"{tmp_path / 'model'}#text-generation")
