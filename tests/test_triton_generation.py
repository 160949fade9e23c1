"""Decoders built for Triton generate what the module does: their plans are interpreted here."""

from __future__ import annotations

from pathlib import Path

import decoders
import pytest
import torch

from strop.compiler import build, load

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
