"""Sentence encoders: ``modules.json`` in the graph, against the library whose format it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from folder_inputs import WORDS, tokenizer
from folder_settings import TEXT
from safetensors.torch import save_file

from strop.compiler.driver.driver import build
from strop.compiler.frontend.huggingface import load_folder
from strop.compiler.util.errors import UsageError

OLD = "sentence_transformers.models"


def feeds() -> dict[str, torch.Tensor]:
    ids = torch.randint(5, WORDS, (3, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, 6:], mask[2, 3:] = 0, 0
    return {"input_ids": ids, "attention_mask": mask}


def encoder(folder: Path, *stages: tuple[str, dict[str, Any]], inside: str = "") -> Path:
    """A folder as releases before 5.4 wrote it: names of modules, and their settings."""
    torch.manual_seed(0)
    transformer = folder / inside
    transformer.mkdir(parents=True, exist_ok=True)
    transformers.BertModel(transformers.BertConfig(**TEXT)).eval().save_pretrained(transformer)
    tokenizer(transformer)
    modules = [{"idx": 0, "name": "0", "path": inside, "type": f"{OLD}.Transformer"}]
    for i, (kind, settings) in enumerate(stages, 1):
        place = folder / f"{i}_{kind}"
        place.mkdir()
        (place / "config.json").write_text(json.dumps(settings))
        name = kind if "." in kind else f"{OLD}.{kind}"
        modules.append({"idx": i, "name": str(i), "path": place.name, "type": name})
    (folder / "modules.json").write_text(json.dumps(modules))
    return folder


def embedding(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = load_folder(str(folder)).module(**feeds())["sentence_embedding"]
    return result


def states(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        module = load_folder(f"{folder}#feature-extraction").module
        result: torch.Tensor = module(**feeds())["last_hidden_state"]
    return result


def pooling(*modes: str) -> tuple[str, dict[str, Any]]:
    every = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens")
    every = (*every, "weightedmean_tokens", "lasttoken")
    return "Pooling", {f"pooling_mode_{mode}": mode in modes for mode in every}


@pytest.mark.parametrize(
    "mode",
    ["cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens"]
    + ["weightedmean_tokens", "lasttoken"],
)
def test_every_mode_of_pooling_sees_real_tokens_only(tmp_path: Path, mode: str) -> None:
    folder = encoder(tmp_path, pooling(mode))
    hidden, mask = states(folder), feeds()["attention_mask"].bool()
    rows = [h[m] for h, m in zip(hidden, mask)]
    weights = [torch.arange(1.0, len(r) + 1)[:, None] for r in rows]
    expected = {
        "cls_token": [r[0] for r in rows],
        "max_tokens": [r.max(0).values for r in rows],
        "mean_tokens": [r.mean(0) for r in rows],
        "mean_sqrt_len_tokens": [r.sum(0) / len(r) ** 0.5 for r in rows],
        "weightedmean_tokens": [(r * w).sum(0) / w.sum() for r, w in zip(rows, weights)],
        "lasttoken": [r[-1] for r in rows],
    }
    torch.testing.assert_close(embedding(folder), torch.stack(expected[mode]))


def test_dense_and_normalize_follow_in_their_order(tmp_path: Path) -> None:
    settings = {"in_features": 64, "out_features": 8, "bias": True}
    dense = ("Dense", settings | {"activation_function": "torch.nn.modules.activation.Tanh"})
    folder = encoder(
        tmp_path, pooling("cls_token", "mean_tokens"), dense, ("Normalize", {}), inside="0_T"
    )
    linear = torch.nn.Linear(64, 8)
    weights = {f"linear.{n}": t.detach() for n, t in linear.named_parameters()}
    save_file(weights, folder / "2_Dense" / "model.safetensors")
    hidden, mask = states(folder / "0_T"), feeds()["attention_mask"][..., None].float()
    mean = (hidden * mask).sum(1) / mask.sum(1)
    with torch.no_grad():
        last = torch.tanh(linear(torch.cat([hidden[:, 0], mean], -1)))
    torch.testing.assert_close(embedding(folder), torch.nn.functional.normalize(last))


@pytest.mark.slow
def test_a_folder_of_the_library_itself_is_built_as_it_is(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import modules

    encoder(tmp_path / "plain", pooling("mean_tokens"))
    transformer = modules.Transformer(str(tmp_path / "plain"))
    modes = ("weightedmean", "mean", "lasttoken", "max", "cls", "mean_sqrt_len_tokens")
    pooled = modules.Pooling(32, pooling_mode=modes)
    stages = [transformer, pooled, modules.Dense(32 * len(modes), 16), modules.Normalize()]
    original = SentenceTransformer(modules=stages)
    original.save_pretrained(str(tmp_path / "saved"))
    with torch.no_grad():
        expected = original.eval()(dict(feeds()))["sentence_embedding"]
    torch.testing.assert_close(embedding(tmp_path / "saved"), expected)


@pytest.mark.slow
def test_a_sentence_encoder_is_built_with_one_output(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "model", pooling("mean_tokens"), ("Normalize", {}))
    artifact = build(load_folder(str(folder)), tmp_path / "out")
    names = [spec["name"] for spec in artifact.manifest["contract"]["outputs"]]
    assert names == ["sentence_embedding"]
    assert "modules.json" not in artifact.manifest["assets"]


@pytest.mark.parametrize(
    ("stages", "words"),
    [
        ([("Pooling", {"pooling_mode": "median"})], "pooling_mode is"),
        ([("Pooling", {"include_prompt": False})], "write a factory"),
        ([("evil.Stage", {})], "'evil.Stage', which is not known here"),
        ([("Normalize", {})], "no Pooling follows"),
        ([pooling("mean_tokens"), ("Dense", {"in_features": "32"})], "in_features"),
        (
            [
                pooling("mean_tokens"),
                ("Dense", {"in_features": 32, "out_features": 8, "activation_function": "os.exit"}),
            ],
            "the activation 'os.exit' is not known",
        ),
    ],
)
def test_what_is_not_known_of_a_module_is_refused(
    tmp_path: Path, stages: list[tuple[str, dict[str, Any]]], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        load_folder(str(encoder(tmp_path, *stages)))


def test_a_module_elsewhere_is_not_read(tmp_path: Path) -> None:
    folder = encoder(tmp_path / "model", pooling("mean_tokens"))
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["path"] = "../other"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UsageError, match="leads out of"):
        load_folder(str(folder))
