"""Encoder-decoders of transformers: greedy texts and beams are those of ``generate``."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_sequence_to_sequence import every_family, programs, source_of
from transformers import GenerationMixin

from strop.compiler import build, load
from strop.compiler.frontend.stepped import Original
from strop.compiler.generate.beams import beam_search
from strop.compiler.generate.loop import Loop
from strop.compiler.generate.prompts import Batch
from strop.compiler.generate.settings import Settings

COUNT = 10


def theirs(original, source, **options):
    """Ids of new tokens, a list for each text, by transformers."""
    with torch.no_grad():
        # Not Whisper's own loop, which takes recordings apart.
        made = GenerationMixin.generate(
            original, **source, max_new_tokens=COUNT, do_sample=False, **options
        )
    return made.tolist()


def new_tokens(row, start, eos):
    """What follows the forced tokens, up to the first that ends texts."""
    assert row[: len(start)] == list(start)
    row = row[len(start) :]
    ends = [i for i, token in enumerate(row) if token in eos]
    return row[: ends[0] + 1] if ends else row


@pytest.mark.parametrize("family", every_family())
def test_four_beams_of_the_programs_in_torch_are_those_of_generate(family, tmp_path) -> None:
    original, made = programs(tmp_path, family)
    source, called = source_of(family), made.generation
    stepped = Original(made, called)
    start = np.array([called.start] * 2, np.int64)
    with torch.no_grad():
        decoder = stepped.decoder(stepped.fixed({n: t.numpy() for n, t in source.items()}))
        batch, settings = Batch(start, np.ones_like(start)), Settings(beams=4)
        found = beam_search(decoder, batch, called, settings, COUNT)
    expected = theirs(original, source, num_beams=4)
    assert found == [new_tokens(row, called.start, called.eos) for row in expected]


@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize(
    "settings",
    [{"suppress_tokens": [7, 50]}, {"begin_suppress_tokens": [7]}, {"forced_eos_token_id": 3}],
)
def test_tokens_that_are_ruled_out_are_those_of_transformers(settings, beams, tmp_path) -> None:
    free = texts(*programs(tmp_path / "free", "t5"), beams)
    ruled = {name: [*{row[0] for row in free}] for name in settings if "suppress" in name}
    original, made = programs(tmp_path / "ruled", "t5", **settings | ruled)
    found = texts(original, made, beams)
    called = made.generation
    expected = theirs(original, source_of("t5"), num_beams=beams)
    assert found == [new_tokens(row, called.start, called.eos) for row in expected]
    assert found != free


def texts(original, made, beams):
    """New tokens of each text, by the loop of strop and the modules in torch."""
    source, called = source_of("t5"), made.generation
    stepped, start = Original(made, called), np.array([called.start] * 2, np.int64)
    batch = Batch(start, np.ones_like(start))
    with torch.no_grad():
        decoder = stepped.decoder(stepped.fixed({n: t.numpy() for n, t in source.items()}))
        if beams > 1:
            return beam_search(decoder, batch, called, Settings(beams=beams), COUNT)
        steps = list(Loop(decoder, batch, called, Settings(), COUNT))
    return [[step[row] for step in steps if row in step] for row in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("family", every_family())
def test_a_built_folder_gives_the_texts_of_generate(family, tmp_path) -> None:
    original, made = programs(tmp_path / "folder", family)
    source, called = source_of(family), made.generation
    loaded = load(build(made, tmp_path / "out", instruments="off").path)
    arrays = {name: tensor.numpy() for name, tensor in source.items()}
    for beams in (1, 4):
        found = list(loaded.generate(arrays, max_new=COUNT, beams=beams))
        expected = theirs(original, source, num_beams=beams)
        for row, want in enumerate(expected):
            got = [token.id for token in found if token.row == row]
            assert got == new_tokens(want, called.start, called.eos)
