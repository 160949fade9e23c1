"""Folders of encoder-decoders as two programs with caches, against transformers' ``generate``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from folder_inputs import tokenizer
from folder_settings import BART, T5, WHISPER

from strop.compiler import Model, Programs
from strop.compiler.frontend.export.capture import capture
from strop.compiler.frontend.huggingface import load_folder
from strop.compiler.frontend.inputs import read_inputs, resize
from strop.compiler.frontend.source import load_source
from strop.compiler.util.errors import UsageError

PLAIN = {"forced_eos_token_id": None, "pad_token_id": 0, "eos_token_id": 3}
BARTS = BART | PLAIN | {"decoder_start_token_id": 2, "max_position_embeddings": 64}
FAMILIES: dict[str, tuple[str, str, Mapping[str, Any]]] = {
    "t5": ("T5ForConditionalGeneration", "T5Config", T5 | {"decoder_start_token_id": 0}),
    "bart": ("BartForConditionalGeneration", "BartConfig", BARTS),
    "marian": ("MarianMTModel", "MarianConfig", BARTS),
    "mbart": ("MBartForConditionalGeneration", "MBartConfig", BARTS),
    "pegasus": ("PegasusForConditionalGeneration", "PegasusConfig", BARTS),
    "whisper": (
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        # Its generate ends at this token whatever it is told: one that does not come.
        WHISPER
        | PLAIN
        | {"decoder_start_token_id": 2, "max_target_positions": 64, "eos_token_id": 98},
    ),
}
QUICK = ("t5", "whisper")


def every_family() -> list[Any]:
    return [pytest.param(f, marks=[] if f in QUICK else pytest.mark.slow) for f in FAMILIES]


def saved(folder: Path, family: str, **more: Any) -> Any:
    """A tiny random checkpoint; returns the module."""
    kind, config, settings = FAMILIES[family]
    torch.manual_seed(0)
    module = getattr(transformers, kind)(getattr(transformers, config)(**settings | more)).eval()
    for weight in module.parameters():
        # Larger than usual, so that texts do not repeat one token; fixed ones are not saved.
        if weight.dim() > 1 and weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.3)
    module.save_pretrained(folder)
    return module


def programs(folder: Path, family: str, **settings: Any) -> tuple[Any, Programs]:
    """The original, and its folder's programs; ``settings`` are those of its generation."""
    original = saved(folder, family)
    original.generation_config._from_model_config = False
    for name, value in settings.items():
        setattr(original.generation_config, name, value)
    original.generation_config.save_pretrained(folder)
    task = "automatic-speech-recognition" if family == "whisper" else "text2text-generation"
    made = load_folder(f"{folder}#{task}")
    assert isinstance(made, Programs)
    return original, made


def source_of(family: str) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(4)
    if family == "whisper":
        return {"input_features": torch.randn(2, 80, 100, generator=random)}
    ids = torch.randint(5, 90, (2, 7), generator=random)
    mask = torch.ones_like(ids)
    ids[1, 4:], mask[1, 4:] = 0, 0
    return {"input_ids": ids, "attention_mask": mask}


def written(made: Programs, source: Mapping[str, torch.Tensor], count: int) -> torch.Tensor:
    """Ids of the tokens that follow those that are forced, greedily, [batch, count]."""
    called = made.generation
    assert called is not None
    encoder, decoder = made.models["encoder"].module, made.models["decoder"].module
    example = made.models["decoder"].example_inputs
    assert isinstance(example, dict)
    caches = {name: example[name][:1, :, :0].expand(2, -1, -1, -1) for name in called.caches}
    tokens: list[torch.Tensor] = []
    with torch.no_grad():
        cross = encoder(**source)
        fixed = {name: cross[output] for name, output in called.cross.items()}
        if "attention_mask" in source:
            fixed["encoder_attention_mask"] = source["attention_mask"]
        ids = torch.tensor([list(called.start)] * 2)
        mask = torch.ones_like(ids)
        for _ in range(count):
            outputs = decoder(input_ids=ids, attention_mask=mask, **caches, **fixed)
            ids = outputs["logits"][:, -1].argmax(-1, keepdim=True)
            mask = torch.cat([mask, torch.ones_like(ids)], 1)
            caches = {name: outputs[called.caches[name]] for name in caches}
            tokens.append(ids)
    return torch.cat(tokens, 1)


def generated(original: Any, source: Mapping[str, torch.Tensor], count: int) -> torch.Tensor:
    with torch.no_grad():
        made = original.generate(
            **source, max_new_tokens=count, do_sample=False, num_beams=1, eos_token_id=None
        )
    tokens: torch.Tensor = made[:, -count:]
    return tokens


@pytest.mark.parametrize("family", every_family())
def test_the_tokens_are_those_of_generate(family: str, tmp_path: Path) -> None:
    original, made = programs(tmp_path / "model", family)
    source = source_of(family)
    assert torch.equal(written(made, source, 12), generated(original, source, 12))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_captured_programs_are_the_modules(family: str, tmp_path: Path) -> None:
    _, made = programs(tmp_path / "model", family)
    for model, several in (
        (made.models["encoder"], [{"batch": 1, "source": 3}, {"batch": 3, "source": 9}]),
        (
            made.models["decoder"],
            [
                {"batch": 1, "seq": 1, "past": 0, "source": 1},
                {"batch": 2, "seq": 3, "past": 4, "source": 6},
            ],
        ),
    ):
        same_program(model, several)


def same_program(model: Model, several: list[dict[str, int]]) -> None:
    signature, example, _ = read_inputs(model)
    with torch.no_grad():
        program = capture(model.module, signature, example)
        for sizes in several:
            inputs = resize(example, signature, sizes)
            for got, expected in zip(program.run(**inputs), model.module(**inputs).values()):
                assert torch.allclose(got, expected, atol=1e-4, rtol=1e-4)


def test_the_encoder_keeps_nothing_of_the_decoder_but_its_keys_and_values(tmp_path: Path) -> None:
    _, made = programs(tmp_path / "model", "bart")
    model = made.models["encoder"]
    signature, example, _ = read_inputs(model)
    with torch.no_grad():
        program = capture(model.module, signature, example)
    assert not [name for name in program.weights if ".self_attn." in name and "decoder" in name]
    assert "model.decoder.layers.1.encoder_attn.k_proj.weight" in program.weights
    assert "source" in {dim.name for dim in program.contract.dims}


def test_encoder_and_decoder_share_their_tensors(tmp_path: Path) -> None:
    _, made = programs(tmp_path / "model", "t5")
    encoder, decoder = (dict(made.models[n].module.named_parameters()) for n in made.models)
    assert encoder.keys() == decoder.keys()
    assert all(encoder[name] is decoder[name] for name in encoder)


def test_the_contract_names_what_crosses(tmp_path: Path) -> None:
    _, made = programs(tmp_path / "model", "bart")
    called = made.generation
    assert called is not None
    assert called.cross["cross.1.value"] == "cross.1.value"
    assert (called.start, called.eos, called.pad, called.context) == ((2,), (3,), 0, 64)
    decoder = made.models["decoder"]
    assert decoder.dynamic is not None
    assert decoder.dynamic["cross.0.key"] == {0: "batch", 2: ("source", 1, 64)}
    assert decoder.dynamic["encoder_attention_mask"] == {0: "batch", 1: ("source", 1, 64)}
    assert not decoder.generation


@pytest.mark.slow
def test_forced_tokens_follow_the_first(tmp_path: Path) -> None:
    original, made = programs(tmp_path / "model", "mbart", forced_bos_token_id=7)
    assert made.generation is not None
    assert made.generation.start == (2, 7)
    source = source_of("mbart")
    assert torch.equal(written(made, source, 8), generated(original, source, 9)[:, 1:])


def test_forced_tokens_of_whisper_follow_the_first(tmp_path: Path) -> None:
    forced = {"forced_decoder_ids": [[2, 9], [1, 8]], "no_timestamps_token_id": 11}
    _, made = programs(tmp_path / "model", "whisper", **forced)
    assert made.generation is not None
    assert made.generation.start == (2, 8, 9, 11)


def test_settings_that_no_artifact_heeds_are_told(tmp_path: Path) -> None:
    _, made = programs(tmp_path / "model", "t5", no_repeat_ngram_size=3, repetition_penalty=1.0)
    (note,) = [note for note in made.notes if "the artifact does not" in note]
    assert note.startswith("no_repeat_ngram_size in the folder's settings")


def test_a_folder_without_a_task_is_built_for_what_its_class_does(tmp_path: Path) -> None:
    saved(tmp_path / "model", "t5")
    tokenizer(tmp_path / "model")
    made = load_source(f"hf:{tmp_path / 'model'}")
    assert isinstance(made, Programs)
    assert {path.name for path in made.files} >= {"config.json", "tokenizer.json"}


def test_a_ctc_model_is_recognition_without_a_decoder(tmp_path: Path) -> None:
    from folder_settings import SPEECH

    module = transformers.Wav2Vec2ForCTC(transformers.Wav2Vec2Config(**SPEECH)).eval()
    module.save_pretrained(tmp_path / "model")
    assert isinstance(load_folder(f"{tmp_path / 'model'}#automatic-speech-recognition"), Model)


def test_without_a_token_to_start_with_it_is_refused(tmp_path: Path) -> None:
    original = saved(tmp_path / "model", "t5")
    original.generation_config.decoder_start_token_id = None
    original.config.decoder_start_token_id = None
    original.save_pretrained(tmp_path / "model")
    with pytest.raises(UsageError, match="decoder_start_token_id"):
        load_folder(f"{tmp_path / 'model'}#text2text-generation")


def test_a_decoder_alone_is_no_encoder_decoder(tmp_path: Path) -> None:
    from folder_settings import GROUPED

    module = transformers.LlamaForCausalLM(transformers.LlamaConfig(**GROUPED))
    module.save_pretrained(tmp_path / "model")
    with pytest.raises(UsageError, match="could not load the weights"):
        load_folder(f"{tmp_path / 'model'}#text2text-generation")
