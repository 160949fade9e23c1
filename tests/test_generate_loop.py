"""The loop over tokens: prompts, padding, ends, and what is drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from decoders import greedy, make
from generate_tools import VOCABULARY, Scripted, tiny, tokens_of

from strop.compiler.generate.loop import Loop
from strop.compiler.generate.prompts import batch_of, room
from strop.compiler.generate.sampling import Chooser, candidates
from strop.compiler.generate.settings import DEFAULT_NEW, Settings
from strop.compiler.util.errors import RuntimeRefusedError, UsageError

PROMPTS = [[5, 9, 11, 30, 7], [8, 9], [40, 12, 3]]


def alone(prompt, count):
    module, _ = tiny()
    ids = torch.tensor([prompt])
    return greedy(module, make(), ids, torch.ones_like(ids), count)[0].tolist()


def test_greedy_tokens_are_those_of_the_module_stepped_by_hand() -> None:
    assert tokens_of([PROMPTS[0]], Settings(max_new=12)) == [alone(PROMPTS[0], 12)]


def test_prompts_of_unequal_lengths_give_what_each_gives_alone() -> None:
    found = tokens_of(PROMPTS, Settings(max_new=10))
    assert found == [alone(prompt, 10) for prompt in PROMPTS]
    assert len({tuple(tokens) for tokens in found}) == 3


def test_a_text_ends_with_its_end_token_and_the_others_go_on() -> None:
    whole = tokens_of(PROMPTS, Settings(max_new=10))
    eos = whole[1][3]
    cut = [t[: t.index(eos) + 1] if eos in t else t for t in whole]
    assert tokens_of(PROMPTS, Settings(max_new=10), eos=(eos,)) == cut
    assert len(cut[1]) < 10 and any(len(tokens) == 10 for tokens in cut)


def test_no_step_is_made_when_all_texts_have_ended() -> None:
    module, called = Scripted([7, 2, 8]), tiny()[1]
    called = type(called)(called.caches, 64, eos=(2, 3))
    batch = batch_of([[4]], called, VOCABULARY)
    steps = list(Loop(module, batch, called, Settings(), 9))
    assert steps == [{0: 7}, {0: 2}]
    assert len(module.given) == 2


def test_a_reader_may_end_a_text() -> None:
    called = tiny()[1]
    loop = Loop(
        Scripted([7, 8, 9]), batch_of([[4], [5]], called, VOCABULARY), called, Settings(), 3
    )
    steps = []
    for step in loop:
        steps.append(step)
        loop.ended[0] = True
    assert steps == [{0: 7, 1: 7}, {1: 8}, {1: 9}]


def test_the_mask_grows_by_one_and_padding_stays_hidden() -> None:
    module, called = Scripted([7, 8]), tiny()[1]
    list(Loop(module, batch_of([[4, 5], [6]], called, VOCABULARY), called, Settings(), 2))
    assert module.given == [
        ([[4, 5], [0, 6]], [[1, 1], [0, 1]]),
        ([[7], [7]], [[1, 1, 1], [0, 1, 1]]),
    ]


def test_texts_that_have_ended_are_fed_padding() -> None:
    module, called = Scripted([7, 8, 9]), tiny()[1]
    loop = Loop(module, batch_of([[4], [6]], called, VOCABULARY), called, Settings(), 3)
    for _ in loop:
        loop.ended[0] = True
    assert module.given[2][0] == [[0], [8]]


@pytest.mark.parametrize("score", [np.nan, np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_scores_that_are_no_numbers_are_refused(score, temperature) -> None:
    logits = np.zeros((2, 5), np.float32)
    logits[1, 3] = score
    choose = Chooser(Settings(temperature=temperature), 2)
    choose(logits, [0])
    with pytest.raises(RuntimeRefusedError, match=f"gives {score} as the score .* of text 1"):
        choose(logits, [0, 1])


def test_the_same_seed_draws_the_same_tokens_and_another_draws_others() -> None:
    drawn = [tokens_of(PROMPTS, Settings(12, temperature=2.0, seed=s)) for s in (3, 3, 4)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_equal_texts_of_a_batch_draw_different_tokens() -> None:
    first, second = tokens_of([[5, 6], [5, 6]], Settings(12, temperature=2.0))
    assert first != second


def test_a_text_draws_the_same_whatever_stands_behind_it() -> None:
    settings = Settings(8, temperature=2.0)
    assert tokens_of(PROMPTS[:1], settings) == tokens_of(PROMPTS, settings)[:1]


def test_tokens_are_drawn_as_often_as_their_scores_say() -> None:
    logits = np.log(np.array([[0.1, 0.2, 0.7]], np.float32))
    choose = Chooser(Settings(temperature=1.0), 1)
    counts = np.bincount([choose(logits, [0])[0] for _ in range(4000)], minlength=3) / 4000
    assert np.abs(counts - [0.1, 0.2, 0.7]).max() < 0.03


@pytest.mark.parametrize(
    "top_k, top_p", [(0, 1.0), (5, 1.0), (0, 0.6), (9, 0.5), (1, 1.0), (0, 1e-9)]
)
@pytest.mark.parametrize("temperature", [0.3, 1.0, 3.0])
def test_candidates_are_those_of_transformers(top_k, top_p, temperature) -> None:
    from transformers.generation import logits_process as theirs

    scores = torch.randn(1, 40, generator=torch.Generator().manual_seed(top_k))
    warped = theirs.TemperatureLogitsWarper(temperature)(None, scores)
    if top_k:
        warped = theirs.TopKLogitsWarper(top_k)(None, warped)
    warped = theirs.TopPLogitsWarper(top_p)(None, warped)
    expected = warped.softmax(-1)[0].numpy()
    settings = Settings(temperature=temperature, top_k=top_k, top_p=top_p)
    tokens, weights = candidates(scores[0].numpy(), settings)
    got = np.zeros(40)
    got[tokens] = weights / weights.sum()
    assert np.allclose(got, expected, atol=1e-6)
    assert len(set(tokens.tolist())) == np.count_nonzero(expected)


def test_of_equal_scores_the_lowest_ids_come_first() -> None:
    tokens, _ = candidates(np.ones(6, np.float32), Settings(temperature=1.0, top_p=0.7))
    assert tokens.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("top_p", [0.2, 0.7, 0.99])
def test_top_p_of_a_large_vocabulary_is_that_of_transformers(top_p) -> None:
    from transformers.generation.logits_process import TopPLogitsWarper

    scores = torch.randn(1, 5000, generator=torch.Generator().manual_seed(0)).double()
    expected = TopPLogitsWarper(top_p)(None, scores).isfinite()[0].nonzero().ravel()
    tokens, _ = candidates(scores[0].numpy(), Settings(temperature=1.0, top_p=top_p))
    assert sorted(tokens.tolist()) == expected.tolist()


@pytest.mark.parametrize(
    "wrong, what",
    [
        ({"max_new": 0}, "max-new is 0"),
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"temperature": 1.0, "top_k": -1}, "top-k is -1"),
        ({"temperature": 1.0, "top_p": 0.0}, "top-p is 0.0"),
        ({"temperature": 1.0, "top_p": 1.01}, "top-p is 1.01"),
        ({"seed": -1}, "seed is -1"),
        ({"beams": 0}, "beams is 0"),
        ({"beams": 2, "length_penalty": float("nan")}, "length-penalty is nan"),
        ({"stop": ("a", "")}, "a stop string is empty"),
        ({"top_k": 3}, "give a temperature too"),
        ({"top_p": 0.9}, "give a temperature too"),
        ({"beams": 2, "temperature": 1.0}, "draws no tokens"),
        ({"beams": 2, "stop": ("a",)}, "ends at no stop string"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, what) -> None:
    with pytest.raises(UsageError, match=what):
        Settings(**wrong)


def test_settings_at_their_bounds_are_taken() -> None:
    Settings(max_new=1, temperature=0.1, top_k=0, top_p=1.0, seed=0, beams=1)


@pytest.mark.parametrize("token", [-1, VOCABULARY])
def test_ids_outside_the_vocabulary_are_refused(token) -> None:
    with pytest.raises(UsageError, match=f"prompt 1 holds the token id {token}; .* from 0 to 60"):
        batch_of([[0, VOCABULARY - 1], [3, token]], tiny()[1], VOCABULARY)


def test_an_empty_prompt_starts_with_the_first_token_of_texts() -> None:
    called = tiny()[1]
    assert batch_of([[], [4, 5]], called, VOCABULARY).ids.tolist() == [[0, 1], [4, 5]]
    without = type(called)(called.caches, 64)
    with pytest.raises(UsageError, match="prompt 1 is empty, and this model has no token"):
        batch_of([[4], []], without, VOCABULARY)
    with pytest.raises(UsageError, match="there is no prompt"):
        batch_of([], called, VOCABULARY)


def test_prompt_and_new_tokens_fit_the_context() -> None:
    assert room(60, 4, 64) == 4
    with pytest.raises(UsageError, match="has 60 tokens, and 5 new ones make 65; .* hold 64"):
        room(60, 5, 64)
    assert room(60, None, 64) == 4
    assert room(60, None, 10_000) == DEFAULT_NEW
    with pytest.raises(UsageError, match="has 64 tokens, and 1 new ones make 65"):
        room(64, None, 64)
