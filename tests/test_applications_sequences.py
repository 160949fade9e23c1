"""Encoder-decoders as applications: one program that trains, two that generate."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from strop.bench.applications import encoder_decoder, summarization, timing, translation
from strop.bench.applications.corpus import Corpus
from strop.bench.applications.functions import Function
from strop.bench.applications.programs import generation, programs
from strop.bench.applications.sequences import Pair, loss
from strop.bench.applications.stepping import Steps, forced_loss, greedy
from strop.bench.applications.transformer import END, Sizes, Transformer, both_programs
from strop.bench.applications.writers import Modules, TimedInTorch
from strop.bench.records.record import Plan
from strop.compiler import load
from strop.compiler.frontend.generation import Generation
from strop.compiler.frontend.programs import as_programs
from strop.passes.train import Policy

SMALL = Sizes(vocabulary=320, width=32, heads=2, layers=1, inner=64, context=24, dropout=0)
Tensors = Mapping[str, torch.Tensor]
QUICK = Policy(steps=4, lr=5e-3, held_out=0)
LEARNING = ("prune-heads.share=0.5", "recover.minutes=0", "recover.steps=2", "budget.min_cosine=-1")


def numbers() -> tuple[list[Pair], list[Pair]]:
    """Numbers in English and in German: those that train, and the others."""
    words = {"one": "eins", "two": "zwei", "three": "drei", "four": "vier", "five": "fünf"}
    every = [
        Pair(" ".join(chosen), " ".join(map(words.__getitem__, chosen)))
        for count in (2, 3)
        for chosen in itertools.product(words, repeat=count)
    ]
    return [p for i, p in enumerate(every) if i % 10], every[::10]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    train, test = numbers()
    return Corpus.of(train, test, SMALL, 16)


@pytest.fixture(scope="module")
def module() -> Transformer:
    torch.manual_seed(0)
    return Transformer(SMALL).eval()


def stepped(weights: Tensors, batch: Tensors) -> torch.Tensor:
    """Logits of every target token, by the encoder, and the decoder token by token."""
    steps = Steps(*both_programs(weights, SMALL), generation(SMALL), batch)
    return torch.stack([steps.step(ids) for ids in batch["decoder_input_ids"].split(1, 1)], 1)


def test_two_programs_give_what_the_whole_gives(module: Transformer, corpus: Corpus) -> None:
    batch = next(b for b in corpus.train if b["attention_mask"].eq(0).any())
    with torch.no_grad():
        whole = module(*(batch[name] for name in encoder_decoder.INPUTS))["logits"]
        torch.testing.assert_close(stepped(module.state_dict(), batch), whole)


def test_tokens_are_chosen_until_their_end() -> None:
    scores = torch.eye(6)
    wanted = [[4, END, 5], [5, 5, END], [4, 5, 4]]

    def decoder(input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> Any:
        step = attention_mask.shape[1] - 1
        return {"logits": scores[[row[step] for row in wanted]][:, None]}

    source = dict.fromkeys(("input_ids", "attention_mask"), torch.ones(3, 2, dtype=torch.int64))
    steps = Steps(lambda **_: {}, decoder, Generation({}, context=8), source)
    assert greedy(steps, rows=3, most=3) == [[4], [5, 5], [4, 5, 4]]


def test_the_loss_of_a_target_is_that_of_the_whole(module: Transformer, corpus: Corpus) -> None:
    batch = corpus.train[0]
    writer = Modules(module.state_dict(), corpus)
    with torch.no_grad():
        whole = module(*(batch[name] for name in encoder_decoder.INPUTS))
    torch.testing.assert_close(forced_loss(writer.steps(batch), batch), loss(whole, batch))


def test_what_is_timed_in_torch_is_what_is_written(module: Transformer, corpus: Corpus) -> None:
    source = next(b for b in corpus.train if b["attention_mask"].all())
    timed, writer = TimedInTorch(SMALL, module.state_dict()), Modules(module.state_dict(), corpus)
    rows = len(source["input_ids"])
    texts = timed.texts(source["input_ids"].numpy(), 5).tolist()
    found = greedy(writer.steps(source), rows, 5)
    assert [row[: len(ids)] for row, ids in zip(texts, found)] == found
    assert [len(row) for row in texts] == rows * [5]


@pytest.mark.slow
def test_pruned_weights_keep_their_names(module: Transformer, corpus: Corpus) -> None:
    found = encoder_decoder.compressed(encoder_decoder.whole(module, corpus), LEARNING)
    for weights in found.values():
        assert weights.keys() == module.state_dict().keys()
        assert weights["encoder.layers.0.self_attn.in_proj_weight"].shape == (48, 32)
        assert weights["decoder.layers.0.multihead_attn.out_proj.weight"].shape == (32, 16)
        assert weights["decoder.layers.0.linear1.weight"].shape == (32, 32)
    name = "decoder.layers.0.linear1.weight"
    assert not found["pruned"][name].equal(found["recovered"][name])
    # The two programs of the smaller weights run, and give as many logits.
    with torch.no_grad():
        batch = corpus.train[0]
        logits = stepped(found["recovered"], batch)
    assert logits.shape == (*batch["decoder_input_ids"].shape, SMALL.vocabulary)


def test_the_decoder_takes_inputs_of_any_sizes(
    module: Transformer, corpus: Corpus, tmp_path: Path
) -> None:
    shown = corpus.calibration()
    made = as_programs(programs(module.state_dict(), SMALL, shown, tmp_path / "tokenizer.json"))
    decoder = made.models["decoder"]
    assert decoder.inputs_at is not None
    for batch, source, seq, past in ((1, 1, 1, 0), (3, 9, 2, 5), (2, 24, 23, 1)):
        inputs = decoder.inputs_at({"batch": batch, "source": source, "seq": seq, "past": past})
        with torch.no_grad():
            outputs = decoder.module(**inputs)
        assert outputs["logits"].shape == (batch, 1, SMALL.vocabulary)
        assert outputs["present.0.key"].shape == (batch, 2, past + seq, SMALL.head_size)
        assert inputs["cross.0.value"].shape == (batch, 2, source, SMALL.head_size)


def test_programs_share_the_table_of_tokens(
    module: Transformer, corpus: Corpus, tmp_path: Path
) -> None:
    weights = module.state_dict()
    made = programs(weights, SMALL, corpus.train[:1], tmp_path / "tokenizer.json")
    shared = [weights["embedding.weight"].data_ptr()]
    for model in made.models.values():
        assert shared == [
            w.data_ptr() for name, w in model.module.named_parameters() if name == "table.words"
        ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "application, data", [(translation, "phrases"), (summarization, "pairs")], ids=["de", "summary"]
)
def test_an_application_runs(
    application: Any, data: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known = dict(zip(("train", "test"), numbers()))
    for name, value in {
        data: known.__getitem__, "SIZES": SMALL, "ROWS": 32, "LEARNING": LEARNING,
        "TRAINING": Policy(steps=150, lr=1e-2, held_out=0),
    }.items():  # fmt: skip
        monkeypatch.setattr(application, name, value)
    monkeypatch.setattr(timing, "PLAN", Plan(threads=[1], bouts=1, rounds=2, patience=0))
    application.main(tmp_path / "out", tmp_path / "results")
    (record,) = (tmp_path / "results").iterdir()
    assert record.stem == application.__name__.rpartition(".")[2]
    saved = json.loads(record.read_text())["measured"]["stages"]
    quality = {one["name"]: one["quality"] for one in saved}
    assert list(quality) == ["torch", *encoder_decoder.RECIPES]
    assert quality["torch"] == pytest.approx(quality["trained"], rel=1e-4)
    assert quality["trained"]["F1"] > 95
    assert quality["trained"]["perplexity"] < 1.5 < quality["pruned"]["perplexity"]
    # The artifact stands alone: the tokenizer lies beside the programs.
    tokens = load(tmp_path / "out/trained").generate("two four", max_new=8)
    assert "".join(token.text for token in tokens) == "zwei vier"


def test_summaries_are_written_of_sources_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Function("add", (), "Add one. And more.", "Add one.", "def add(x): return x + 1")
    none = replace(one, summary="")
    monkeypatch.setattr(summarization, "functions", lambda part: (one, none))
    assert summarization.pairs("train") == [Pair("def add x return x 1", "add one.")]


def test_names_are_spelled_as_words() -> None:
    source = "def setLevel(self, new_level=HTTP2):\n    self.level = _checked(new_level)"
    words = "def set level self new level http 2 self level checked new level"
    assert summarization.words_of(source) == words
