"""An encoder is run once, and its decoder makes the texts that the original modules make."""

from __future__ import annotations

import json

import numpy as np
import pytest
from seq2seq import make

from strop.compiler import build, load
from strop.compiler.frontend.stepped import Original
from strop.compiler.generate.beams import beam_search
from strop.compiler.generate.loop import Loop
from strop.compiler.generate.prompts import Batch
from strop.compiler.generate.settings import Settings
from strop.compiler.util.errors import UsageError

SOURCES = [[5, 9, 11, 30, 7], [8, 9], [20, 12, 3]]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return build(make(), tmp_path_factory.mktemp("seq2seq") / "out", instruments="off").path


@pytest.fixture(scope="module")
def original():
    programs = make()
    return Original(programs, programs.generation)


def padded(sources):
    longest = max(map(len, sources))
    ids = np.array([s + [0] * (longest - len(s)) for s in sources])
    return {"input_ids": ids, "attention_mask": (ids != 0).astype(np.int64)}


def start(rows):
    return Batch(np.ones((rows, 1), np.int64), np.ones((rows, 1), np.int64))


def rows(tokens, count):
    return [[t.id for t in tokens if t.row == row] for row in range(count)]


def test_tokens_are_those_of_the_original_modules(out, original) -> None:
    decoder = original.decoder(original.fixed(padded(SOURCES)))
    steps = list(Loop(decoder, start(3), original.called, Settings(), 10))
    expected = [[step[row] for step in steps if row in step] for row in range(3)]
    assert rows(list(load(out).generate(SOURCES, max_new=10)), 3) == expected
    assert len({tuple(text) for text in expected}) == 3


def test_beams_are_those_of_the_original_modules(out, original) -> None:
    decoder = original.decoder(original.fixed(padded(SOURCES)))
    expected = beam_search(decoder, start(3), original.called, Settings(beams=3), 8)
    assert rows(list(load(out).generate(SOURCES, max_new=8, beams=3)), 3) == expected


def test_what_an_encoder_takes_may_be_given_by_name(out) -> None:
    loaded = load(out)
    by_ids = rows(list(loaded.generate(SOURCES, max_new=5)), 3)
    assert rows(list(loaded.generate(padded(SOURCES), max_new=5)), 3) == by_ids
    with pytest.raises(UsageError, match="the encoder takes input_ids, attention_mask; got x"):
        loaded.generate({"x": np.ones((1, 2))})


def test_the_encoder_is_run_once(out) -> None:
    loaded, runs = load(out), []
    session = loaded.programs["encoder"].session
    run = session.run
    session.run = lambda feeds, what="": runs.append(feeds) or run(feeds, what)
    assert len(list(loaded.generate(SOURCES[0], max_new=6))) > 1
    assert len(runs) == 1


def test_the_check_leads_the_decoder_along_texts_of_sources(out) -> None:
    manifest = json.loads((out / "manifest.json").read_text())
    (text,) = manifest["generated"]["texts"]
    assert (text["case"], text["equal"], text["tokens"]) == ("generate source 0", 48, 48)
    assert manifest["generated"]["perplexity"] == {"original": None, "artifact": None}
    assert not (out / "genai_config.json").exists()


def test_a_decoder_alone_takes_no_arrays_by_name() -> None:
    from generate_tools import scripted

    from strop.compiler.generate.generator import generate

    with pytest.raises(UsageError, match="this model has no encoder that takes arrays"):
        generate(scripted([1]), {"input_ids": np.ones((1, 2))}, Settings())
