"""Which decoders of model libraries keep their caches in buffers that calls share."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_sequence_to_sequence import saved as saved_pair
from test_text_generation import saved

from strop.compiler import build
from strop.compiler.frontend.huggingface import load_folder


def shares(folder: Path, task: str, out: Path) -> bool:
    manifest = build(load_folder(f"{folder}#{task}"), out).manifest
    return bool(manifest["generation"]["shared_buffers"])


@pytest.mark.parametrize(
    ("family", "why"),
    [
        ("gemma2", "scores are bounded by a tanh, and the mask is one of numbers"),
        ("bloom", "heads are folded into the batch, and scores fall with distance"),
        pytest.param("codegen", "the mask is scaled with the scores", marks=pytest.mark.slow),
        ("mpt", "the mask of numbers is made one of places again, and its complement fills"),
    ],
)
def test_decoders_that_write_attention_out_share_buffers(
    family: str, why: str, tmp_path: Path
) -> None:
    saved(tmp_path / "model", family)
    assert shares(tmp_path / "model", "text-generation", tmp_path / "out")


@pytest.mark.slow
def test_a_decoder_with_biases_for_its_places_shares_buffers(tmp_path: Path) -> None:
    saved_pair(tmp_path / "model", "t5")
    assert shares(tmp_path / "model", "text2text-generation", tmp_path / "out")


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("gpt_neo", "the mask may show other places than those before a token"),
        ("xglm", "no attention continues them"),
    ],
)
def test_a_note_says_why_caches_are_copied(family: str, reason: str, tmp_path: Path) -> None:
    saved(tmp_path / "model", family)
    built = build(load_folder(f"{tmp_path / 'model'}#text-generation"), tmp_path / "out")
    assert not built.manifest["generation"]["shared_buffers"]
    [note] = [note for note in built.manifest["notes"] if "copies" in note]
    assert note.startswith("each new token copies 4 of the caches: ") and reason in note
