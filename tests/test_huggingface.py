"""Checkpoint folders through ``hf:``: which class, which inputs, which sizes, which files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from conftest import Strop
from folder_cases import FolderCase, cases
from folder_inputs import detection_processor, extractor, tokenizer
from folder_settings import GPT2, IMAGE, SPEECH, T5, TEXT
from folder_tools import run_case, saved

from strop.compiler import Model
from strop.compiler.frontend.huggingface import TASKS, load_folder
from strop.compiler.frontend.huggingface.request import Request, parse_request
from strop.compiler.frontend.source import load_model
from strop.compiler.util.errors import UsageError

CASES = {case.name: case for case in cases()}


def write(folder: Path, model: transformers.PreTrainedModel, *files: object) -> Path:
    torch.manual_seed(0)
    model.eval().save_pretrained(folder)
    for put in files:
        put(folder)  # type: ignore[operator]
    return folder


def bert(kind: str = "BertForSequenceClassification", **more: object) -> object:
    settings = TEXT | {"num_labels": 3, "max_position_embeddings": 40} | more
    return getattr(transformers, kind)(transformers.BertConfig(**settings))


def edit(folder: Path, name: str = "config.json", **changes: object) -> None:
    path = folder / name
    values = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(values | changes))


def dims(model: Model) -> dict[str, tuple[int, int] | None]:
    """The ranges of the dynamic dims; None for those without."""
    found = {}
    for axes in (model.dynamic or {}).values():
        for spec in axes.values():
            found[spec if isinstance(spec, str) else spec[0]] = (
                None if isinstance(spec, str) else spec[1:]
            )
    return found


def outputs(model: Model) -> list[str]:
    with torch.no_grad():
        return list(model.module(**model.example_inputs))


# What a folder is built as ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["BertForSequenceClassification", "ViTForImageClassification"])
def test_a_folder_is_built_and_gives_the_numbers_of_the_original(tmp_path: Path, name: str) -> None:
    outcome = run_case(CASES[name], tmp_path)
    assert outcome.stage == "ok", outcome.why
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["labels"]["2"] == "LABEL_2"
    assert "config.json" in manifest["assets"]


@pytest.mark.slow
@pytest.mark.parametrize("case", cases(), ids=[case.name for case in cases()])
def test_every_case_is_built(tmp_path: Path, case: FolderCase) -> None:
    outcome = run_case(case, tmp_path)
    assert outcome.stage == "ok", outcome.why


@pytest.mark.parametrize(
    "name",
    [
        "LayoutLMForTokenClassification",
        "BertForMultipleChoice",
        "GPT2LMHeadModel",
        "BartForSequenceClassification",
        "SegformerForSemanticSegmentation",
        "Wav2Vec2ForCTC",
        "CLIPTextModelWithProjection",
        "CLIPModel",
        "CLIPModel#text-embedding",
        "WhisperForConditionalGeneration#encoder",
    ],
)
def test_a_folder_keeps_inputs_head_and_numbers(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    original = saved(case, tmp_path / "checkpoint")
    model = load_folder(f"{tmp_path / 'checkpoint'}{'#' if case.task else ''}{case.task}")
    feeds = case.feeds(0)
    assert set(model.example_inputs) == set(feeds)
    with torch.no_grad():
        want = case.expected(original, feeds) if case.expected else original(**feeds)
        got = model.module(**feeds)
    for output, value in got.items():
        torch.testing.assert_close(value, want[output], rtol=1e-4, atol=1e-5)


def test_token_types_and_padding_vary_in_the_examples_of_a_pair(tmp_path: Path) -> None:
    """The check cannot see an input that is the same everywhere."""
    model = load_folder(str(write(tmp_path, bert(), tokenizer)))
    first = model.example_inputs
    assert isinstance(first, dict)
    for name in ("attention_mask", "token_type_ids"):
        assert set(first[name].flatten().tolist()) == {0, 1}
    assert len(set(first["input_ids"].flatten().tolist())) > 10


def test_models_that_add_a_word_for_a_segment_get_no_token_types(tmp_path: Path) -> None:
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2))
    assert set(load_folder(str(write(tmp_path, model, tokenizer))).example_inputs) == {
        "input_ids",
        "attention_mask",
    }


def test_a_folder_without_tokenizer_takes_what_the_model_tells_apart(tmp_path: Path) -> None:
    model = load_folder(str(write(tmp_path, bert())))
    assert set(model.example_inputs) == {"input_ids", "attention_mask", "token_type_ids"}


def test_a_detection_processor_gives_the_mask_of_padding(tmp_path: Path) -> None:
    case = next(c for c in cases() if detection_processor in c.files)
    saved(case, tmp_path / "checkpoint")
    model = load_folder(str(tmp_path / "checkpoint"))
    mask = dict(model.example_inputs)["pixel_mask"]
    assert set(mask.flatten().tolist()) == {0, 1}
    assert dims(model)["height"] is not None


def test_an_extractor_gives_the_mask_of_padding(tmp_path: Path) -> None:
    config = transformers.Wav2Vec2Config(**SPEECH | {"feat_extract_norm": "layer"})
    model = load_folder(str(write(tmp_path, transformers.Wav2Vec2ForCTC(config), extractor)))
    assert set(dict(model.example_inputs)["attention_mask"].flatten().tolist()) == {0, 1}
    assert dims(model)["samples"] is not None


def test_every_task_has_one_line_in_the_list(strop: Strop) -> None:
    result = strop("tasks")
    assert result.code == 0
    for name in TASKS:
        assert name in result.out


# Sizes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "length"),
    [
        (lambda: bert(), 40),
        (
            lambda: transformers.RobertaModel(
                transformers.RobertaConfig(**TEXT, max_position_embeddings=42, pad_token_id=1)
            ),
            40,
        ),
        (lambda: transformers.GPT2Model(transformers.GPT2Config(**GPT2, n_positions=700)), 700),
    ],
)
def test_the_length_is_the_models_own_limit(tmp_path: Path, model: object, length: int) -> None:
    folder = write(tmp_path, model(), tokenizer)  # type: ignore[operator]
    assert dims(load_folder(str(folder)))["seq"] == (1, length)


def test_relative_positions_have_no_limit(tmp_path: Path) -> None:
    folder = write(tmp_path, transformers.T5EncoderModel(transformers.T5Config(**T5)), tokenizer)
    assert dims(load_folder(str(folder)))["seq"] is None


def test_a_length_beyond_the_memory_of_the_check_is_shortened_and_said(tmp_path: Path) -> None:
    config = transformers.GPT2Config(**GPT2, n_positions=16384)
    folder = str(write(tmp_path, transformers.GPT2Model(config), tokenizer))
    model = load_folder(folder)
    assert dims(model)["seq"] == (1, 4096)
    assert "up to 16384 tokens; it was built for up to 4096" in model.notes[0]
    shorter = load_folder(f"{folder}#feature-extraction,max-length=100")
    assert (dims(shorter)["seq"], shorter.notes) == ((1, 100), [])


def test_images_of_other_sizes_are_taken_where_the_model_takes_them(tmp_path: Path) -> None:
    saved(CASES["ResNetForImageClassification"], tmp_path / "resnet")
    found = dims(load_folder(str(tmp_path / "resnet")))
    assert found["height"] is not None
    assert found["height"][1] == 448
    saved(CASES["ViTForImageClassification"], tmp_path / "vit")
    assert set(dims(load_folder(str(tmp_path / "vit")))) == {"batch"}


# Weights ----------------------------------------------------------------------------------------


def test_weights_of_another_head_are_refused_until_they_are_named(tmp_path: Path) -> None:
    folder = str(write(tmp_path, bert("BertForPreTraining"), tokenizer))
    with pytest.raises(UsageError, match=r"does not use: cls\.seq_relationship"):
        load_folder(f"{folder}#fill-mask")
    model = load_folder(f"{folder}#fill-mask,ignore=cls.seq_relationship.*")
    assert "not used: cls.seq_relationship.bias" in model.notes[0]


def test_weights_that_would_be_random_are_refused_until_they_are_named(tmp_path: Path) -> None:
    folder = str(write(tmp_path, bert(num_labels=2), tokenizer))
    with pytest.raises(UsageError, match=r"lacks weights .* qa_outputs"):
        load_folder(f"{folder}#question-answering")
    wanted = f"{folder}#question-answering,ignore=qa_outputs.*,ignore=classifier.*"
    first, second = load_folder(wanted), load_folder(wanted)
    assert any("random weights" in note for note in first.notes)
    for a, b in zip(first.module.parameters(), second.module.parameters()):
        assert torch.equal(a, b)


def test_a_body_that_the_user_names_may_leave_the_head_behind(tmp_path: Path) -> None:
    folder = str(write(tmp_path, bert(), tokenizer))
    model = load_folder(f"{folder}#feature-extraction")
    assert outputs(model) == ["last_hidden_state", "pooler_output"]
    assert "not used: classifier.bias" in model.notes[0]


def test_a_head_is_not_left_behind_where_the_config_names_no_class(tmp_path: Path) -> None:
    folder = write(tmp_path, bert(), tokenizer)
    edit(folder, architectures=None)
    with pytest.raises(UsageError, match="does not use: classifier"):
        load_folder(str(folder))


def test_an_encoder_without_a_pooler_has_no_pooled_output(tmp_path: Path) -> None:
    """transformers would add a pooler with random weights."""
    folder = write(tmp_path, bert("BertForMaskedLM"), tokenizer)
    assert outputs(load_folder(f"{folder}#feature-extraction")) == ["last_hidden_state"]


def test_a_pooler_that_the_task_does_not_use_is_no_matter(tmp_path: Path) -> None:
    folder = write(tmp_path, bert("BertForPreTraining"), tokenizer)
    model = load_folder(f"{folder}#fill-mask,ignore=cls.seq_relationship.*")
    assert outputs(model) == ["logits"]


def test_weights_in_a_pickle_are_read_without_running_code(tmp_path: Path) -> None:
    folder = write(tmp_path, bert(), tokenizer)
    weights = transformers.modeling_utils.load_state_dict(str(folder / "model.safetensors"))
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    assert "weights_only" in load_folder(str(folder)).notes[0]


# What is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "task", "words"),
    [
        (lambda: bert(), "#text-clasification", "did you mean 'text-classification'?"),
        (
            lambda: transformers.T5Model(transformers.T5Config(**T5)),
            "",
            "#encoder builds its encoder",
        ),
        (lambda: bert(), "#encoder", "is not an encoder-decoder"),
        (
            lambda: transformers.ViTForImageClassification(transformers.ViTConfig(**IMAGE)),
            "#text-generation",
            "transformers could not load the weights: ValueError",
        ),
        (lambda: bert(), "#text-embedding", "has no encoder of its own for texts"),
        (lambda: bert(), "#sentence-embedding", "modules.json"),
        (lambda: bert(), "#fill-mask,igore=x", "did you mean 'ignore'?"),
        (lambda: bert(), "#feature-extraction,max-length=50", "the model takes 40 at most"),
    ],
)
def test_a_folder_or_task_that_strop_cannot_call_is_refused(
    strop: Strop, tmp_path: Path, model: object, task: str, words: str
) -> None:
    source = write(tmp_path / "model", model(), tokenizer)  # type: ignore[operator]
    result = strop("build", f"hf:{source}{task}", "-o", tmp_path / "out")
    assert result.code == 2, result.err
    assert words in result.err
    assert "Traceback" not in result.err
    assert "example_inputs" not in result.err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architectures": ["Sorcery"], "auto_map": {"AutoModel": "m.Sorcery"}}, "write a factory"),
        ({"architectures": ["pipeline"]}, "not one of transformers"),
        ({"architectures": "BertModel"}, "'architectures' is str"),
        ({"architectures": [1]}, "holds a value that is not a name"),
        ({"hidden_size": "32"}, "could not load the weights"),
        ({"num_hidden_layers": 10**8}, "no model has more than"),
        ({"num_attention_heads": 0}, "could not load the weights"),
        ({"model_type": 5}, "'model_type' is int"),
        ({"id2label": {"0": ["x"], "1": "y", "2": "z"}}, ""),
    ],
)
def test_an_odd_config_is_one_sentence(
    tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    folder = write(tmp_path, bert(), tokenizer)
    edit(folder, **changes)
    with pytest.raises(UsageError) as refused:
        load_folder(str(folder))
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_custom_code_beside_a_class_that_transformers_has_is_left_alone(tmp_path: Path) -> None:
    folder = write(tmp_path, bert(), tokenizer)
    edit(folder, auto_map={"AutoModelForSequenceClassification": "evil.Model"})
    (folder / "evil.py").write_text("raise SystemExit")
    model = load_folder(str(folder))
    assert type(model.module).__name__ == "BertForSequenceClassification"
    assert "evil.py" not in [path.name for path in model.files]


def test_tokens_that_the_model_does_not_have_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, bert(vocab_size=3), tokenizer)
    with pytest.raises(UsageError, match="they are not of one model"):
        load_folder(str(folder))


def test_a_folder_with_damaged_weights_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "model", bert(), tokenizer)
    (source / "model.safetensors").write_bytes(b"\0" * 64)
    with pytest.raises(UsageError, match="transformers could not load"):
        load_model(f"hf:{source}")


def test_a_classifier_that_needs_a_pad_token_says_so(tmp_path: Path) -> None:
    config = transformers.GPT2Config(**GPT2 | {"pad_token_id": None})
    folder = write(tmp_path, transformers.GPT2ForSequenceClassification(config))
    with pytest.raises(UsageError, match="takes one text at a time; name it in config"):
        load_folder(str(folder))
    tokenizer(folder)
    assert load_folder(str(folder)).notes[0].startswith("padding is token 0")


def test_weights_outside_the_folder_are_not_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", bert(), tokenizer)
    (folder / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    index = {"weight_map": {"classifier.bias": "../elsewhere.safetensors"}, "metadata": {}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UsageError, match="outside its folder"):
        load_folder(str(folder))


# What is shipped --------------------------------------------------------------------------------


def test_a_server_gets_tokenizer_and_config_and_no_weights_or_code(tmp_path: Path) -> None:
    folder = write(tmp_path, bert(), tokenizer)
    for name in ("modeling.py", "README.md", "optimizer.pt", "training_args.bin"):
        (folder / name).write_text("x")
    names = {path.name for path in load_folder(str(folder)).files}
    assert names == {"config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"}


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", bert(), tokenizer)
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "merges.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(UsageError, match="leads out of"):
        load_folder(str(folder))


def test_a_snapshot_in_the_cache_of_the_hub_is_read_through_its_links(tmp_path: Path) -> None:
    model = tmp_path / "models--tiny" / "snapshots" / "abc"
    write(model, bert(), tokenizer)
    blobs = tmp_path / "models--tiny" / "blobs"
    blobs.mkdir()
    for path in list(model.iterdir()):
        path.rename(blobs / path.name)
        path.symlink_to(f"../../blobs/{path.name}")
    names = {path.name for path in load_folder(str(model)).files}
    assert "tokenizer.json" in names


# Requests ---------------------------------------------------------------------------------------


def test_a_request_names_folder_task_and_options(tmp_path: Path) -> None:
    assert parse_request("a#b,ignore=x.*,ignore=y,max-length=64") == Request(
        Path("a"), "b", ("x.*", "y"), 64
    )
    assert parse_request("a") == Request(Path("a"))
    (tmp_path / "v#1").mkdir()
    assert parse_request(f"{tmp_path}/v#1") == Request(tmp_path / "v#1")
    for wrong in ("a#b,max-length=1", "a#b,max-length=x", "a#b,ignore=", "a#b,other=1"):
        with pytest.raises(UsageError):
            parse_request(wrong)


@pytest.mark.slow
def test_a_checkpoint_in_bfloat16_is_computed_in_float32_and_says_so(
    strop: Strop, tmp_path: Path
) -> None:
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**TEXT)).to(torch.bfloat16)
    source = write(tmp_path / "model", model, tokenizer)
    result = strop("build", f"hf:{source}#text-generation,max-length=64", "-o", tmp_path / "out")
    assert result.code == 0, result.err
    assert "bfloat16 is computed in float32" in result.out
