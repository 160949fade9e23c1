"""Sentences as tokens of a small vocabulary, which is learned from those that train."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch

from strop.bench.models.text import Part, passages, prose

VOCABULARY = 512
SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[MASK]")
PAD, CLS, SEP, MASK = range(len(SPECIAL))


def encoded(sentences: Sequence[str], size: int = VOCABULARY) -> list[list[int]]:
    """The tokens of each sentence, without special ones.

    Args:
        sentences: to encode.
        size: of the vocabulary; at least that of all bytes and the special tokens, 260.
    """
    return [found.ids for found in _tokenizer(size).encode_batch(list(sentences))]


@cache
def _tokenizer(size: int) -> Any:
    """Byte pairs, learned from the standard library; Sennrich, Haddow and Birch (2016)."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(prose("train"), trainer)
    return made


def rows(part: Part, length: int) -> torch.Tensor:
    """Passages of a part one after another, cut into rows: int64 [rows, length]."""
    stream = [
        token for passage in passages(part) for ids in encoded(passage) for token in (*ids, SEP)
    ]
    whole = len(stream) // length * length
    return torch.tensor(stream[:whole]).view(-1, length)
