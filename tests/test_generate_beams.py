"""Beam search gives the tokens that transformers' ``generate`` gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from generate_tools import fed, tiny
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from strop.compiler.frontend.generation import Generation
from strop.compiler.generate.beams import beam_search
from strop.compiler.generate.prompts import batch_of
from strop.compiler.generate.settings import Settings
from strop.compiler.targets.decoding import FedDecoder, Start, names_of
from strop.compiler.util.errors import RuntimeRefusedError

VOCABULARY, HEADS, SIZE, LAYERS = 41, 2, 8, 2
CACHES = [f"{i}.{kind}" for i in range(LAYERS) for kind in ("key", "value")]


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=HEADS * SIZE, intermediate_size=24, bos_token_id=1,
        num_hidden_layers=LAYERS, num_attention_heads=HEADS, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    module = LlamaForCausalLM(config).eval()
    for weight in module.parameters():
        if weight.dim() == 2:
            torch.nn.init.normal_(weight, std=0.4)
    return module


def called(eos: tuple[int, ...]) -> Generation:
    return Generation({name: f"new.{name}" for name in CACHES}, context=64, eos=eos)


def decoder_of(module: LlamaForCausalLM, how: Generation) -> FedDecoder:
    def run(feeds):
        past = [torch.as_tensor(feeds[name]) for name in CACHES]
        cache = DynamicCache(list(zip(past[::2], past[1::2])))
        mask = torch.as_tensor(feeds["attention_mask"])
        ids = torch.as_tensor(feeds["input_ids"])
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        with torch.no_grad():
            found = module(
                input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache
            )
        new = [t for layer in found.past_key_values.layers for t in (layer.keys, layer.values)]
        given = {f"new.{name}": tensor.numpy() for name, tensor in zip(CACHES, new)}
        return {"logits": found.logits[:, -1:].numpy(), **given}

    empty = np.zeros((1, HEADS, 0, SIZE), np.float32)
    return FedDecoder(run, names_of(how), Start(dict.fromkeys(CACHES, empty)))


@pytest.mark.parametrize("beams, penalty", [(2, 1.0), (4, 1.0), (4, 0.0), (3, 2.0), (4, -1.0)])
@pytest.mark.parametrize("eos", [(), (5,), (3, 17, 8)])
def test_texts_are_those_of_transformers(llama, beams, penalty, eos) -> None:
    prompts = [[7, 9, 12, 4], [11, 30], [2, 2, 2]]
    batch, how = batch_of(prompts, called(eos), VOCABULARY), called(eos)
    settings = Settings(beams=beams, length_penalty=penalty)
    found = beam_search(decoder_of(llama, how), batch, how, settings, 14)
    theirs = llama.generate(
        torch.as_tensor(batch.ids), attention_mask=torch.as_tensor(batch.mask), num_beams=beams,
        max_new_tokens=14, length_penalty=penalty, do_sample=False,
        eos_token_id=list(eos) or None, pad_token_id=0,
    )[:, batch.longest :].tolist()  # fmt: skip
    for got, want in zip(found, theirs):
        assert got == want[: len(got)]
        assert set(want[len(got) :]) <= {0, *eos[:1]}
    if eos and penalty == 1.0:
        assert any(len(text) < 14 for text in found)


def test_one_token_and_one_beam_are_greedy(llama) -> None:
    how = called(())
    batch = batch_of([[7, 9], [3]], how, VOCABULARY)
    best = decoder_of(llama, how).step(batch.ids, batch.mask).argmax(1)
    found = beam_search(decoder_of(llama, how), batch, how, Settings(beams=4), 1)
    assert [text[0] for text in found] == best.tolist()


def test_the_prompts_are_computed_once_for_all_beams() -> None:
    module, how = tiny()
    rows = []

    class Counted(FedDecoder):
        def step(self, ids, mask):
            rows.append(ids.shape)
            return super().step(ids, mask)

    plain = fed(module, how)
    decoder = Counted(plain._run, names_of(how), Start(plain._caches))
    beam_search(decoder, batch_of([[4, 5, 6], [7]], how, 61), how, Settings(beams=3), 3)
    assert rows == [(2, 3), (6, 1), (6, 1)]


def test_scores_that_are_no_numbers_are_refused() -> None:
    how = called(())

    class Broken:
        def step(self, ids, mask):
            return np.full((len(ids), VOCABULARY), np.nan, np.float32)

        def repeat(self, times):
            pass

    with pytest.raises(RuntimeRefusedError, match="gives nan as the score"):
        beam_search(Broken(), batch_of([[4]], how, VOCABULARY), how, Settings(beams=2), 3)
