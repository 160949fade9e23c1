"""Pairs of texts as tokens: what an encoder-decoder is trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from strop.bench.applications.transformer import END, PAD, START
from strop.compiler.rewriting.context import Batch
from strop.passes.distill.losses import IGNORED, hard_labels

SPECIAL = ("[PAD]", "[START]", "[END]", "[UNKNOWN]")
INPUTS = ("input_ids", "attention_mask", "decoder_input_ids")


@dataclass(frozen=True)
class Pair:
    """A text, and the one that is wanted for it."""

    source: str
    target: str


def learned_tokenizer(pairs: Sequence[Pair], size: int) -> Any:
    """Byte pairs of both sides; Sennrich, Haddow and Birch (2016).

    Returns:
        A ``tokenizers.Tokenizer``, which is saved as ``tokenizer.json`` beside the model.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(
        [text for pair in pairs for text in (pair.source, pair.target)], trainer
    )
    return made


def encoded(texts: Sequence[str], tokenizer: Any, most: int) -> list[list[int]]:
    """The tokens of each text, cut to so many."""
    return [found.ids[:most] for found in tokenizer.encode_batch(list(texts))]


def batches(pairs: Sequence[Pair], tokenizer: Any, rows: int, context: int) -> list[Batch]:
    """Rows of about one length, by the names of the model's inputs, with ``labels``.

    Texts are cut to one token less than the context, since targets get a start or an end.
    """
    sources, targets = (
        encoded([getattr(pair, side) for pair in pairs], tokenizer, context - 1)
        for side in ("source", "target")
    )
    ordered = sorted(zip(sources, targets), key=lambda row: len(row[0]) + len(row[1]))
    return [_batch(ordered[i : i + rows]) for i in range(0, len(ordered), rows)]


def _batch(rows: Sequence[tuple[list[int], list[int]]]) -> Batch:
    source = padded([ids for ids, _ in rows], PAD)
    return {
        "input_ids": source,
        "attention_mask": source.ne(PAD).long(),
        "decoder_input_ids": padded([[START, *ids] for _, ids in rows], PAD),
        "labels": padded([[*ids, END] for _, ids in rows], IGNORED),
    }


def padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Rows of ids, filled on the right: int64 [rows, length]."""
    return nn.utils.rnn.pad_sequence(
        [torch.tensor(row) for row in rows], batch_first=True, padding_value=value
    )


def loss(outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
    """Cross-entropy of the target's tokens, those before each of them given."""
    return hard_labels(outputs["logits"], batch["labels"])
