"""Inputs of a decoder with caches: real contents, padded rows, at any sizes."""

from __future__ import annotations

import pytest
import torch
from decoders import Sizes as DecoderSizes
from decoders import decoder, generation, greedy, make

from strop.compiler.frontend.decoder_inputs import DecoderInputs


def whole_text(model, inputs):
    """The ids of a row that has no padding, those in the cache too, as the factory drew them."""
    return model.inputs_at.text[:1, : inputs["attention_mask"].shape[1]]


@pytest.mark.parametrize("past", [0, 1, 7, 32])
@pytest.mark.parametrize("window", [None, 4])
def test_caches_hold_what_the_module_computed_of_the_places_before(past, window) -> None:
    model = make(window=window)
    inputs = model.inputs_at({"batch": 3, "seq": 4, "past": past})
    empty = model.inputs_at({"batch": 1, "seq": 1, "past": 0})
    text = whole_text(model, inputs)
    caches = {n: empty[n] for n in model.generation.caches}
    with torch.no_grad():
        expected = model.module(input_ids=text, attention_mask=torch.ones_like(text), **caches)
        got = model.module(**inputs)
    for before, after in model.generation.caches.items():
        assert inputs[before].shape == (3, 2, past, 8)
        assert torch.allclose(got[after][:1], expected[after], atol=1e-5)
    assert torch.allclose(got["logits"][:1], expected["logits"], atol=1e-4)


def test_rows_are_padded_on_the_left_and_keep_a_real_token() -> None:
    inputs_at = make().inputs_at
    for sizes in ((1, 1, 0), (3, 1, 0), (3, 1, 1), (3, 5, 8), (4, 9, 0)):
        mask = inputs_at(dict(zip(("batch", "seq", "past"), sizes)))["attention_mask"]
        assert mask[0].all()
        assert mask[:, -1].all()
        assert (mask.diff(dim=1) >= 0).all()
    assert mask[1:, 0].eq(0).all()


def test_padding_is_the_pad_token() -> None:
    module, called = decoder(), generation(DecoderSizes(), pad=5)
    empty = torch.zeros(1, 2, 0, 8)
    text = torch.full((1, 9), 7)
    inputs_at = DecoderInputs(module, called, text, dict.fromkeys(called.caches, empty))
    inputs = inputs_at({"batch": 2, "seq": 6, "past": 0})
    assert inputs["input_ids"].tolist() == [[7] * 6, [5] * 3 + [7] * 3]


def test_a_long_cache_repeats_places_that_are_real_in_every_row() -> None:
    model = make()
    inputs = model.inputs_at({"batch": 4, "seq": 1, "past": 1000})
    cache, mask = inputs["past_key_values.0.value"], inputs["attention_mask"]
    assert cache.shape[2] == 1000
    assert mask.shape == (4, 1001)
    assert mask[:, 256:].all()
    assert torch.equal(cache[:, :, 512:768], cache[:, :, 256:512])
    assert torch.equal(cache[:, :, 768:], cache[:, :, 256:488])


def test_a_padded_row_gives_the_tokens_that_it_gives_alone() -> None:
    model = make()
    ids = torch.arange(3, 24).reshape(3, 7)
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    together = greedy(model.module, model, ids, mask, 12)
    alone = greedy(model.module, model, ids[1:2, 3:], mask[1:2, 3:], 12)
    assert torch.equal(together[1:2], alone)
    assert len(set(together[0].tolist())) > 4
