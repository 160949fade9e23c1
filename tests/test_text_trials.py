"""Data and models of the trials on text and on symbols, with a text of a few sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from strop.bench.models import causal, minilm, pretraining, reversal, text, tokens, wordpieces
from strop.bench.trials.arms import after, drawn
from strop.bench.trials.task import outputs_of
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Context
from strop.passes.distill.losses import IGNORED
from strop.passes.prune.dependency import dependencies
from strop.passes.prune.groups import groups
from strop.passes.prune.prune import Prune

CACHED = (
    text.prose, text.passages, text._runs, tokens._tokenizer, pretraining._pairs, causal.task,
    pretraining.task, wordpieces.kept,
)  # fmt: skip


def sentence(number: int) -> str:
    return f"Sentence number {number} says that {number} things are here, and no more."


class Words:
    """A tokenizer of whole words, numbered as they come, after special ones."""

    def __init__(self) -> None:
        special = ("[MASK]", "[CLS]", "[UNK]", "[SEP]", "[PAD]")
        self.numbers = {word: number for number, word in enumerate(special, 7)}

    def convert_tokens_to_ids(self, words: list[str]) -> list[int]:
        return [self.numbers.setdefault(word, len(self.numbers) + 7) for word in words]

    def __call__(self, texts: list[str], add_special_tokens: bool) -> dict[str, list[list[int]]]:
        assert not add_special_tokens
        return {"input_ids": [self.convert_tokens_to_ids(text.split()) for text in texts]}


def encoder() -> torch.nn.Module:
    """What stands for MiniLM: an encoder of two layers, with the same weights each time."""
    import transformers

    config = transformers.BertConfig(
        hidden_size=16, num_attention_heads=2, num_hidden_layers=2, intermediate_size=32,
        vocab_size=2000, max_position_embeddings=64,
    )  # fmt: skip
    return drawn(lambda: transformers.BertModel(config), 0)


@pytest.fixture(scope="module")
def small_text() -> Iterator[None]:
    """600 docstrings of three sentences; the second one of each comes from another docstring."""
    texts = [
        " ".join(sentence(n) for n in (3 * i, 3 * ((7 * i) % 600) + 1, 3 * i + 2))
        for i in range(600)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "_docstrings", lambda root: iter(texts))
        patch.setitem(causal.SIZES, "num_hidden_layers", 1)
        patch.setattr(text, "_folder", lambda package: Path(package))
        words = Words()
        patch.setattr(wordpieces, "tokenizer", lambda: words)
        patch.setattr(minilm, "encoder", encoder)
        patch.setattr(pretraining, "LAYERS", 1)
        yield from forgotten()


def forgotten() -> Iterator[None]:
    """Nothing is kept of other texts, and nothing of this one afterwards."""
    for function in CACHED:
        function.cache_clear()
    yield
    for function in CACHED:
        function.cache_clear()


@pytest.fixture(scope="module")
def llama(small_text: None) -> Program:
    return causal.task().captured(drawn(lambda: causal.llama(tied=True), 0))


def test_sentences_that_follow_each_other_end_at_code_and_at_paragraphs() -> None:
    a, b, c, d = map(sentence, range(4))
    found = text._sentences(f"{a} {b} x = 1; {c}\n\n{c} >>> run(it) {d}\n\n{d}")
    assert list(found) == [(a,), (d,)]
    assert list(text._sentences(f"{a} {b} Short. {c}\n\n{d}")) == [(a, b), (c,), (d,)]


def test_passages_are_in_one_part_each_and_share_no_sentence_with_those_that_train(
    small_text: None,
) -> None:
    parts = {part: text.passages(part) for part in ("train", "validation", "test")}
    known = {one for passage in parts["train"] for one in passage}
    for part in ("validation", "test"):
        assert parts[part]
        assert all(text.part_of(passage[0]) == part for passage in parts[part])
        assert known.isdisjoint(one for passage in parts[part] for one in passage)
    assert all(len(passage) == 3 for passage in parts["train"])


def test_a_single_sentence_is_no_passage(monkeypatch: pytest.MonkeyPatch) -> None:
    twice = f"{sentence(2)} {sentence(3)}"
    monkeypatch.setattr(text, "_docstrings", lambda root: iter([sentence(1), twice, twice]))
    for _ in forgotten():
        parts: list[text.Part] = ["train", "validation", "test"]
        assert [p for part in parts for p in text.passages(part)] == [(sentence(2), sentence(3))]
        assert sum(len(text.prose(part)) for part in parts) == 3


def test_rows_are_the_text_with_marks_between_sentences(small_text: None) -> None:
    rows = tokens.rows("test", 16)
    whole = [
        t for p in text.passages("test") for ids in tokens.encoded(p) for t in (*ids, tokens.SEP)
    ]
    assert rows.shape == (len(whole) // 16, 16)
    assert rows.flatten().tolist() == whole[: rows.numel()]
    assert int(rows.max()) < tokens.VOCABULARY


def test_perplexity_is_of_the_token_that_follows(llama: Program) -> None:
    (batch, *_) = causal.task().test
    (logits,) = llama.run(input_ids=batch["input_ids"])
    logs = logits.detach().log_softmax(-1)[:, :-1].gather(2, batch["input_ids"][:, 1:, None])
    expected = math.exp(-float(logs.mean()))
    assert causal.perplexity(llama, [batch]) == pytest.approx(expected, rel=1e-5)


def test_a_llama_loses_whole_groups_of_heads(llama: Program) -> None:
    passes = [
        Prune(share=0.25, kinds=(kind,), importance="l2", round_to=1) for kind in ("ffn", "heads")
    ]
    smaller = after(passes, llama, Context())
    shapes = {name: tuple(weight.shape) for name, weight in smaller.parameters.items()}
    assert shapes["model.layers.0.self_attn.k_proj.weight"] == (24, 64)
    assert shapes["model.layers.0.self_attn.q_proj.weight"] == (48, 64)
    assert shapes["model.layers.0.mlp.up_proj.weight"] == (192, 64)


def test_heads_are_separate_or_tied(small_text: None) -> None:
    tied, separate = (dict(causal.llama(one).named_parameters()) for one in (True, False))
    assert set(separate) - set(tied) == {"lm_head.weight"}


def test_rare_words_are_unknown(small_text: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wordpieces, "VOCABULARY", 12)
    for _ in forgotten():
        common = wordpieces.kept()
        special = wordpieces.tokenizer().convert_tokens_to_ids(list(wordpieces.SPECIAL))
        assert list(common[:5]) == special
        assert len(set(common)) == 12
        (found,) = wordpieces.encoded(["Sentence number 5 says"])
        assert found[2] == wordpieces.UNK
        assert wordpieces.UNK not in (*found[:2], found[3])


def test_the_encoder_starts_from_weights_of_the_words_that_are_kept(small_text: None) -> None:
    source, made = encoder().state_dict(), drawn(pretraining.bert, 1).state_dict()
    table = "embeddings.word_embeddings.weight"
    assert torch.equal(made["bert." + table], source[table][list(wordpieces.kept())])
    assert torch.equal(made["cls.predictions.decoder.weight"], made["bert." + table])
    layer = "encoder.layer.0.attention.self.query.weight"
    assert torch.equal(made["bert." + layer], source[layer])
    assert "bert." + layer.replace("0", "1") not in made
    pooler = "pooler.dense.weight"
    assert not torch.equal(made["bert." + pooler], source[pooler])


def test_pairs_of_sentences_are_masked_and_half_of_them_are_strangers(small_text: None) -> None:
    batches = pretraining.batches("train", 1)
    ids, labels, types, mask, strangers = (
        torch.cat([batch[name] for batch in batches])
        for name in ("input_ids", "labels", "token_type_ids", "attention_mask",
                     "next_sentence_label")
    )  # fmt: skip
    assert torch.equal(mask, (ids != wordpieces.PAD).long())
    assert (ids[:, 0] == wordpieces.CLS).all()
    assert ((ids == wordpieces.SEP).sum(1) == 2).all()
    asked = labels != IGNORED
    assert asked.sum() / mask.sum() == pytest.approx(0.15, abs=0.02)
    assert (ids == wordpieces.MASK)[asked].float().mean() == pytest.approx(0.8, abs=0.03)
    assert not (ids == wordpieces.MASK)[~asked].any()
    assert not (asked & (mask == 0)).any()
    kept = (ids == labels)[asked].float().mean()
    assert kept == pytest.approx(0.1, abs=0.03)
    assert strangers.float().mean() == pytest.approx(0.5, abs=0.1)
    assert ((types.diff(dim=1) > 0).sum(1) == 1).all()
    followed = {(tuple(a), tuple(b)) for a, b in zip(*pretraining._pairs("train"))}
    whole = torch.where(asked, labels, ids)
    for row, kind, stranger in zip(whole.tolist(), types.tolist(), strangers.tolist()):
        second = kind.index(1)
        pair = tuple(row[1 : second - 1]), tuple(row[second : row.index(wordpieces.SEP, second)])
        assert (pair in followed) == (not stranger)


def test_words_that_are_asked_for_depend_on_the_draw(small_text: None) -> None:
    one, same, other = (pretraining.batches("train", draw)[0]["labels"] for draw in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_both_losses_of_pretraining_are_added_in_the_metric_and_weighted_in_training(
    small_text: None,
) -> None:
    batch = pretraining.batches("test")[0]
    program = pretraining.task().captured(drawn(pretraining.bert, 0))
    found = pretraining.mean_losses(program, [batch])
    assert found["mlm"] == pytest.approx(math.log(len(wordpieces.kept())), rel=0.1)
    assert found["nsp"] == pytest.approx(math.log(2), rel=0.2)
    assert pretraining.total(program, [batch]) == pytest.approx(sum(found.values()))
    outputs = outputs_of(program, pretraining.task().inputs(batch))
    weighted = 0.1 * found["mlm"] + found["nsp"]
    assert float(pretraining.loss(outputs, batch)) == pytest.approx(weighted)


def test_reversal_wants_the_source_from_its_end() -> None:
    for batch in reversal.batches(3, 0):
        assert torch.equal(batch["labels"], batch["source"].flip(1))
        assert torch.equal(batch["target"][:, 1:], batch["labels"][:, :-1])
        assert (batch["target"][:, 0] == reversal.START).all()
        assert (batch["source"] != reversal.START).all()
    lengths = {batch["source"].shape[1] for batch in reversal.batches(200, 0)}
    assert lengths == set(range(reversal.SHORTEST, reversal.LONGEST + 1))


def test_accuracy_counts_symbols() -> None:
    batches = reversal.batches(2, 0)

    def run(source: torch.Tensor, target: torch.Tensor) -> tuple[np.ndarray]:
        labels = source.flip(1)
        labels[:, 0] = reversal.START  # never right
        return (torch.nn.functional.one_hot(labels, reversal.SYMBOLS).numpy(),)

    sizes = [batch["source"].shape for batch in batches]
    wrong = sum(rows for rows, _ in sizes) / sum(rows * length for rows, length in sizes)
    assert reversal.right(run, batches) == pytest.approx(1 - wrong)


def test_the_translator_sees_no_later_symbols_and_has_heads_everywhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reversal, "LAYERS", 1)
    task = replace(reversal.task(), train=reversal.batches(1, 3))
    program = task.captured(drawn(reversal.Translator, 0))
    inputs = task.inputs(task.train[0])
    changed = inputs["target"].clone()
    changed[:, -1] = 1 + changed[:, -1] % (reversal.SYMBOLS - 1)
    (before,), (behind,) = program.run(**inputs), program.run(**inputs | {"target": changed})
    torch.testing.assert_close(before[:, :-1], behind[:, :-1])
    assert not torch.allclose(before[:, -1], behind[:, -1])
    heads = [g.name for g in groups(dependencies(program)) if g.kind == "heads" and not g.frozen]
    assert len(heads) == 3
    assert sum("multihead_attn" in name for name in heads) == 1
