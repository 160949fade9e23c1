"""Decoders built for Triton generate what the module does: their plans are interpreted here."""

from __future__ import annotations

from pathlib import Path

import decoders
import pytest
import torch
from test_narrow_cache import built
from test_text_generation import FAMILIES, saved

from strop.compiler import build, load
from strop.compiler.frontend.huggingface import load_folder

PROMPTS = [[5, 6, 7, 8], [13, 14]]
COUNT = 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:there is no CUDA device")
def test_texts_of_several_lengths_are_those_of_the_module(tmp_path: Path) -> None:
    model = decoders.make(layers=1, heads=4, kv_heads=2, head_size=16)
    build(model, recipe="triton-fp16", out=tmp_path / "out")
    found: list[list[int]] = [[] for _ in PROMPTS]
    for token in load(tmp_path / "out").generate(PROMPTS, max_new=COUNT):
        found[token.row].append(token.id)
    ids = torch.tensor([PROMPTS[0], [0, 0, *PROMPTS[1]]])
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    wanted = decoders.greedy(model.module, model, ids, mask, COUNT).tolist()
    assert found == [one[: one.index(2) + 1] if 2 in one else one for one in wanted]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:there is no CUDA device")
def test_weights_in_4_bits_for_texts_are_a_recipe(tmp_path: Path) -> None:
    # The tiny decoder knows nothing: its tokens hang on the last digits.
    manifest = built(tmp_path, "triton-llm-w4a16", min_token_agreement=0.1, max_perplexity=3.0)
    passes = {step["name"] for step in manifest["passes"] if step["modified"]}
    assert {"cached-attention", "quantize-weights-narrow", "precision"} <= passes
    caches = manifest["generation"]["caches"]
    specs = {spec["name"]: spec for spec in manifest["contract"]["inputs"]}
    assert all(specs[name]["dtype"] == "f16" for name in caches)
    assert 0 < len(list(load(tmp_path / "out").generate([[5, 6]], max_new=3))) <= 3


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "mistral", "gpt2", "gemma2"])
@pytest.mark.filterwarnings("ignore:there is no CUDA device")
def test_a_folder_of_transformers_gives_the_tokens_of_generate(family: str, tmp_path: Path) -> None:
    original = saved(tmp_path / "model", family, **FAMILIES[family])
    model = load_folder(f"{tmp_path / 'model'}#text-generation,max-length=24")
    loaded = load(build(model, recipe="triton-fp16", out=tmp_path / "out").path)
    for beams in (1, 4):
        found = [t.id for t in loaded.generate([PROMPTS[0]], max_new=COUNT, beams=beams)]
        with torch.no_grad():
            wanted = original.generate(
                torch.tensor([PROMPTS[0]]), max_new_tokens=COUNT, do_sample=False, num_beams=beams
            )
        assert found == wanted[0, len(PROMPTS[0]) :].tolist()
