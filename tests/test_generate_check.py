"""What the original makes when it generates, and how an artifact is compared with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from decoders import greedy, make
from generate_tools import Scripted, plain_model

from strop.compiler.check import generated as check
from strop.compiler.check.generated import check_texts, hold_generation
from strop.compiler.frontend import texts as made_by
from strop.compiler.frontend.programs import as_programs
from strop.compiler.frontend.stepped import Original
from strop.compiler.frontend.texts import NEW, make_texts
from strop.compiler.generate.forced import forced_scores, perplexity
from strop.compiler.generate.prompts import Batch
from strop.compiler.recipes.budget import Budget
from strop.compiler.util.errors import BudgetError, UsageError


@pytest.fixture(scope="module")
def known():
    return make_texts(as_programs(make()), "bounded")


def opened(model):
    original = Original(as_programs(model), model.generation)
    return lambda source, fixed: original.decoder(fixed)


def by_name(texts):
    return {text.name: text for text in texts.made}


def test_texts_are_those_that_the_module_makes_greedily(known) -> None:
    text, model = by_name(known)["3 x 7 tokens"], make()
    ids, mask = (torch.as_tensor(a) for a in (text.batch.ids, text.batch.mask))
    assert np.array_equal(text.tokens, greedy(model.module, model, ids, mask, NEW).numpy())
    assert text.scores.shape == (NEW, 3, 61)
    assert np.array_equal(text.scores.argmax(-1).T, text.tokens)


def test_prompts_are_parts_of_the_calibration_text_and_rows_are_padded(known) -> None:
    batch = by_name(known)["3 x 7 tokens"].batch
    assert batch.mask.sum(1).tolist() == [7, 3, 1]
    inputs = make().calibration[0]
    new = inputs["attention_mask"][:, -inputs["input_ids"].shape[1] :].bool()
    assert batch.ids[0].tolist() == inputs["input_ids"][new][:7].tolist()


def test_ends_of_texts_do_not_end_them() -> None:
    model = make()
    text = by_name(make_texts(as_programs(model), "bounded"))["1 x 7 tokens"]
    model.generation = replace(model.generation, eos=(int(text.tokens[0, 2]),))
    again = by_name(make_texts(as_programs(model), "bounded"))["1 x 7 tokens"]
    assert np.array_equal(text.tokens, again.tokens)


def test_a_context_that_is_too_short_leaves_cases_out(known) -> None:
    assert known.left_out == ["1 x 128 tokens", "3 x 128 tokens"]
    long = make_texts(as_programs(make(context=300)), "bounded")
    assert not long.left_out
    assert by_name(long)["1 x 128 tokens"].tokens.shape == (1, NEW)


def test_what_costs_too_much_is_left_out_but_for_a_few_tokens(monkeypatch) -> None:
    # A call takes 4 seconds by estimate, and there is time for one.
    parameters = sum(weight.numel() for weight in make().module.parameters())
    monkeypatch.setattr(made_by, "BYTES_PER_SECOND", float(parameters))
    found = make_texts(as_programs(make()), "bounded")
    assert [(t.name, t.tokens.shape) for t in found.made] == [("1 x 1 tokens", (1, 2))]
    assert len(found.left_out) == 5
    assert found.text is None
    full = make_texts(as_programs(make()), "full")
    assert len(full.made) == 4
    assert full.text is not None


def test_perplexity_is_taken_on_calibration_text_only() -> None:
    model = make()
    model.calibration = None
    found = make_texts(as_programs(model), "bounded")
    assert found.text is None
    assert found.made


def test_perplexity_is_that_of_one_run_over_the_text(known) -> None:
    model, text = make(), torch.as_tensor(known.text)
    empty = {n: torch.as_tensor(a).expand(len(text), -1, -1, -1) for n, a in known.empty.items()}
    surprises = []
    for end in range(1, text.shape[1]):
        mask = torch.ones(len(text), end, dtype=torch.int64)
        with torch.no_grad():
            scores = model.module(input_ids=text[:, :end], attention_mask=mask, **empty)["logits"]
        surprises.append(torch.nn.functional.cross_entropy(scores[:, -1], text[:, end]))
    expected = float(torch.stack(surprises).mean().exp())
    assert known.perplexity == pytest.approx(expected, rel=1e-4)


def test_a_decoder_that_guesses_has_the_perplexity_of_its_vocabulary() -> None:
    class Even(Scripted):
        def step(self, ids, mask):
            return np.full((len(ids), 7), 1000.0, np.float32)

    assert perplexity(Even([]), np.array([[1, 2, 3], [4, 5, 6]])) == pytest.approx(7)


def test_a_decoder_is_led_along_a_text() -> None:
    decoder = Scripted([3, 4, 5])
    batch = Batch(np.array([[8, 9]]), np.array([[0, 1]]))
    scores = [
        one.argmax(-1).tolist() for one in forced_scores(decoder, batch, np.array([[1, 2, 6]]))
    ]
    assert scores == [[3], [4], [5]]
    assert decoder.given == [
        ([[8, 9]], [[0, 1]]),
        ([[1]], [[0, 1, 1]]),
        ([[2]], [[0, 1, 1, 1]]),
    ]


def test_the_original_itself_agrees(known) -> None:
    found = check_texts(known, opened(make()))
    assert found.agreement == 1
    assert found.perplexity == (known.perplexity, known.perplexity)
    assert all(text.first is None for text in found.texts)
    strict = Budget(max_error=0, min_cosine=0.999999, min_token_agreement=1, max_perplexity=1)
    hold_generation(found, strict)


@pytest.fixture(scope="module")
def another(known):
    """How a model with a slightly different head generates."""
    model = make()
    with torch.no_grad():
        model.module.norm.weight.mul_(torch.linspace(0.5, 1.5, 32))
    return check_texts(known, opened(model))


def test_the_first_token_that_differs_is_found(known, another) -> None:
    assert another.agreement < 1
    text = next(t for t in another.texts if t.first is not None)
    first = text.first
    made = by_name(known)[text.comparison.case.removeprefix("generate ")]
    assert made.tokens[first.row, first.number] == first.original != first.artifact
    assert text.equal < text.tokens == made.tokens.size


def test_of_differences_the_first_in_time_is_told() -> None:
    tokens = np.array([[1, 2, 3], [4, 5, 6]])
    chosen = np.array([[1, 2, 9], [4, 8, 6]])
    assert check._first(tokens, chosen) == check.Departure(row=1, number=1, original=5, artifact=8)
    assert check._first(tokens, tokens) is None


@pytest.mark.parametrize(
    "limits, what",
    [
        ({"min_token_agreement": 0.999}, "of the tokens are the original's (budget 99.90%)"),
        ({"max_perplexity": 0.5}, "times that (budget 0.5)"),
        ({"max_error": 1e-3}, "logits is off by"),
        ({"min_cosine": 0.99999}, "logits has cosine"),
    ],
)
def test_each_limit_is_held_with_the_first_token_that_differs(another, limits, what) -> None:
    with pytest.raises(BudgetError) as miss:
        hold_generation(another, Budget(**limits))
    assert what in str(miss.value)
    assert "first token that differs (generate " in str(miss.value)


def test_limits_that_are_kept_are_no_miss(another) -> None:
    worse = another.perplexity[1] / another.perplexity[0]
    hold_generation(another, Budget())
    hold_generation(
        another, Budget(min_token_agreement=another.agreement, max_perplexity=worse + 0.01)
    )


def test_a_perplexity_that_is_no_number_is_a_miss(another) -> None:
    broken = replace(another, perplexity=(3.0, float("nan")))
    with pytest.raises(BudgetError, match="perplexity is 3 for the original and nan"):
        hold_generation(broken, Budget())
    assert broken.record()["perplexity"] == {"original": 3.0, "artifact": None}
    hold_generation(replace(another, perplexity=(float("nan"), float("nan"))), Budget())


def test_a_model_that_does_not_generate_has_no_texts() -> None:
    model = make()
    model.generation = None
    assert make_texts(as_programs(model), "bounded") is None


def test_names_that_the_decoder_does_not_have_are_told() -> None:
    model = make()
    caches = {**model.generation.caches, "past_key_values.2.key": "present.2.key"}
    model.generation = replace(model.generation, caches=caches)
    with pytest.raises(UsageError, match="names the input 'past_key_values.2.key', which the dec"):
        make_texts(as_programs(model), "bounded")


def test_inputs_that_generation_does_not_give_are_told() -> None:
    model = make()
    model.example_inputs = {**model.example_inputs, "scale": torch.ones(1)}
    model.calibration = None
    with pytest.raises(UsageError, match="'scale' is not in both"):
        make_texts(as_programs(model), "bounded")


def test_a_module_that_fails_while_it_generates_is_told() -> None:
    model = make()
    model.module.forward = lambda **given: 1 / 0
    with pytest.raises(UsageError, match=r"fails when it generates \(input_ids \[1, 1\]"):
        make_texts(as_programs(model), "bounded")


def test_a_fixed_batch_leaves_out_what_has_another() -> None:
    model = plain_model()
    del model.dynamic["input_ids"][0], model.dynamic["attention_mask"][0]
    for name in model.generation.caches:
        model.dynamic[name] = {2: model.dynamic[name][2]}
    model.calibration = None
    found = make_texts(as_programs(model), "bounded")
    assert {t.batch.rows for t in found.made} == {3}
