"""Prompts as one batch of token ids, padded on the left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from strop.compiler.generate.settings import DEFAULT_NEW
from strop.compiler.targets.decoding import Called
from strop.compiler.util.errors import UsageError
from strop.compiler.util.numerics import Array


@dataclass(frozen=True)
class Batch:
    """What the decoder is given first.

    Attributes:
        ids: [rows, longest] int64.
        mask: [rows, longest] int64, 0 at padding.
    """

    ids: Array
    mask: Array

    @property
    def rows(self) -> int:
        """How many texts there are."""
        return int(self.ids.shape[0])

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt."""
        return int(self.ids.shape[1])


def batch_of(prompts: Sequence[Sequence[int]], called: Called, vocabulary: int) -> Batch:
    """Prompts of token ids as one batch.

    Raises:
        UsageError: there is none, an id is not in the vocabulary, or a prompt is empty and the
            model has no token that texts start with.
    """
    if not prompts:
        raise UsageError("there is no prompt")
    rows = [_started(list(ids), number, called) for number, ids in enumerate(prompts)]
    for number, ids in enumerate(rows):
        _require_known(ids, number, vocabulary)
    longest = max(len(ids) for ids in rows)
    padded = np.full((len(rows), longest), called.pad, np.int64)
    mask = np.zeros_like(padded)
    for row, ids in enumerate(rows):
        padded[row, longest - len(ids) :] = ids
        mask[row, longest - len(ids) :] = 1
    return Batch(padded, mask)


def _started(ids: list[int], number: int, called: Called) -> list[int]:
    if ids:
        return ids
    if called.bos is None:
        raise UsageError(
            f"prompt {number} is empty, and this model has no token that texts start with: "
            "give at least one token"
        )
    return [called.bos]


def _require_known(ids: Sequence[int], number: int, vocabulary: int) -> None:
    for token in ids:
        if not 0 <= token < vocabulary:
            raise UsageError(
                f"prompt {number} holds the token id {token}; the model's vocabulary has "
                f"{vocabulary} tokens, from 0 to {vocabulary - 1}"
            )


def room(longest: int, max_new: int | None, context: int) -> int:
    """How many new tokens to make behind a prompt of so many tokens.

    Raises:
        UsageError: prompt and new tokens are more than the caches are made for.
    """
    if max_new is None and longest < context:
        return min(DEFAULT_NEW, context - longest)
    if longest + (max_new or 1) > context:
        raise UsageError(
            f"the prompt has {longest} tokens, and {max_new or 1} new ones make "
            f"{longest + (max_new or 1)}; the model's caches hold {context}"
        )
    assert max_new is not None
    return max_new
