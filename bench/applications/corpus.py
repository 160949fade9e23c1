"""Pairs of texts, their tokenizer, and the sizes of the model that learns them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from strop.bench.applications.sequences import Pair, batches, encoded, learned_tokenizer, padded
from strop.bench.applications.transformer import PAD, Sizes
from strop.compiler.rewriting.context import Batch

_CALIBRATED = 8


@dataclass(frozen=True)
class Corpus:
    """Pairs of texts, and their tokens.

    Attributes:
        train: batches to learn from.
        test: pairs that nothing is learned from.
        tokenizer: of both sides; a ``tokenizers.Tokenizer``.
        sizes: of the Transformer that learns them.
    """

    train: Sequence[Batch]
    test: Sequence[Pair]
    tokenizer: Any
    sizes: Sizes

    @staticmethod
    def of(train: Sequence[Pair], test: Sequence[Pair], sizes: Sizes, rows: int) -> Corpus:
        """Learn a tokenizer, and cut the pairs that train into batches of so many rows."""
        tokenizer = learned_tokenizer(train, sizes.vocabulary)
        return Corpus(batches(train, tokenizer, rows, sizes.context), test, tokenizer, sizes)

    def calibration(self) -> list[Batch]:
        """Some of the batches, short ones and long ones."""
        return list(self.train[:: max(1, len(self.train) // _CALIBRATED)])

    def tokens(self, sources: Sequence[str]) -> Batch:
        """Sources as an encoder takes them."""
        ids = padded(encoded(sources, self.tokenizer, self.sizes.context - 1), PAD)
        return {"input_ids": ids, "attention_mask": ids.ne(PAD).long()}
