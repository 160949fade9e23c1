"""A decoder led along texts that are known: its scores, and how well it foretells a text."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from strop.compiler.generate.prompts import Batch
from strop.compiler.targets.decoding import Decoder
from strop.compiler.util.numerics import Array


def forced_scores(decoder: Decoder, batch: Batch, tokens: Array) -> Iterator[Array]:
    """Scores of each next token where the tokens before it are those of the text.

    Args:
        decoder: with empty caches.
        batch: the prompts.
        tokens: [rows, length] int64, how the texts go on.

    Returns:
        For each of the tokens, [rows, vocabulary] float32, which the next step may overwrite.

    Raises:
        RuntimeRefusedError: the runtime does not run the decoder.
    """
    mask = np.concatenate([batch.mask, np.ones_like(tokens)], 1)
    yield decoder.step(batch.ids, batch.mask)
    for step in range(1, tokens.shape[1]):
        yield decoder.step(tokens[:, step - 1 : step], mask[:, : batch.longest + step])


def perplexity(decoder: Decoder, text: Array) -> float:
    """How surprised a decoder is by each token of a text after the first, on average.

    exp of the mean of -log p(token), over all rows: 1 for a decoder that knows the text, the size
    of the vocabulary for one that guesses.

    Args:
        decoder: with empty caches.
        text: [rows, length] int64, without padding.
    """
    batch, tokens = Batch(text[:, :1], np.ones_like(text[:, :1])), text[:, 1:]
    steps = zip(forced_scores(decoder, batch, tokens), tokens.T)
    return float(np.exp(np.mean([surprise(scores, right) for scores, right in steps])))


def surprise(scores: Array, tokens: Array) -> Array:
    """-log softmax of scores, [rows, vocabulary], at one token of each row: [rows] float64."""
    scores = scores.astype(np.float64)
    highest = scores.max(1)
    log_sum = highest + np.log(np.exp(scores - highest[:, None]).sum(1))
    found: Array = log_sum - scores[np.arange(len(tokens)), tokens]
    return found
