"""Beam search: the same texts as transformers' ``generate`` finds with its default settings.

Source: ``GenerationMixin._beam_search`` of transformers 5, with ``early_stopping=False``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from strop.compiler.generate.allowed import Allowed
from strop.compiler.generate.prompts import Batch
from strop.compiler.generate.sampling import require_number
from strop.compiler.generate.settings import Settings
from strop.compiler.targets.decoding import Called, Decoder
from strop.compiler.util.numerics import Array

_NEVER = -1e9
"""The score of what cannot be chosen."""


@dataclass
class _Search:
    """The search for one text.

    Attributes:
        texts: tokens of each running beam.
        scores: sum of log probabilities of each running beam, [beams] float32, best first.
        finished: texts that have ended with their scores, by length, best first.
        improving: whether a running beam may still become better than those that have ended.
    """

    texts: list[list[int]]
    scores: Array
    finished: list[tuple[float, list[int]]]
    improving: bool = True


@dataclass(frozen=True)
class _Candidate:
    """A running beam with one more token: the sum of log probabilities, and its old number."""

    score: float
    origin: int
    text: list[int]
    ends: bool


def beam_search(
    decoder: Decoder, batch: Batch, called: Called, settings: Settings, count: int
) -> list[list[int]]:
    """The best text of at most so many tokens for each prompt.

    Args:
        decoder: with empty caches.
        batch: the prompts.
        called: says which tokens end a text.
        settings: the number of beams and the length penalty.
        count: the most tokens to make for each text.

    Raises:
        RuntimeRefusedError: the runtime does not run the decoder, or its scores are no numbers.
    """
    beams, allowed = settings.beams, Allowed(called, count)
    searches = [_new(beams) for _ in range(batch.rows)]
    logits = decoder.step(batch.ids, batch.mask)
    decoder.repeat(beams)
    logits = logits.repeat(beams, 0)
    mask = np.concatenate([batch.mask, np.ones((batch.rows, count), np.int64)], 1).repeat(beams, 0)
    for length in range(1, count + 1):
        scored = allowed(_log_probabilities(logits), length).reshape(batch.rows, beams, -1)
        rows = [
            number * beams + origin
            for number, search in enumerate(searches)
            for origin in _advance(search, scored[number], called, settings, length, count)
        ]
        if length == count or not any(search.improving for search in searches):
            break
        decoder.reorder(rows)
        ids = np.array([text[-1:] for search in searches for text in search.texts], np.int64)
        logits = decoder.step(ids, mask[:, : batch.longest + length])
    return [search.finished[0][1] for search in searches]


def _new(beams: int) -> _Search:
    # Only the first beam counts at first, or all of them would find the same.
    scores = np.full(beams, _NEVER, np.float32)
    scores[0] = 0
    return _Search([[] for _ in range(beams)], scores, [])


def _log_probabilities(logits: Array) -> Array:
    """Log softmax of the last axis, float32."""
    highest = logits.max(1, keepdims=True)
    for row, score in enumerate(highest[:, 0]):
        require_number(score, row)
    shifted = logits - highest
    scored: Array = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return scored


def _advance(
    search: _Search, scored: Array, called: Called, settings: Settings, length: int, count: int
) -> list[int]:
    """Add a token to each running beam.

    Args:
        search: is changed.
        scored: log probabilities of the next token, [beams, vocabulary].
        called: says which tokens end a text.
        settings: the number of beams and the length penalty.
        length: of the texts with the new token.
        count: the most that it may be.

    Returns:
        Which of the old beams each new one continues.
    """
    beams, vocabulary = scored.shape
    sums = (scored + search.scores[:, None]).reshape(-1)
    found = []
    # So many that enough go on where the best of them end.
    for place in _best(sums, max(2, 1 + len(called.eos)) * beams):
        origin, token = divmod(int(place), vocabulary)
        ends = token in called.eos or length == count
        found.append(_Candidate(sums[place], origin, [*search.texts[origin], token], ends))
    _finish(search, found[:beams], settings, length)
    running = np.array([one.score + (_NEVER if one.ends else 0) for one in found], np.float32)
    chosen = _best(running, beams)
    search.texts, search.scores = [found[i].text for i in chosen], running[chosen]
    _look_ahead(search, settings, length)
    return [found[i].origin for i in chosen]


def _best(scores: Array, count: int) -> Array:
    """The places of the highest scores, highest first; of equal ones the first comes first."""
    count = min(count, len(scores))
    likely = np.sort(np.argpartition(-scores, count - 1)[:count])
    return likely[np.argsort(-scores[likely], kind="stable")]


def _finish(search: _Search, best: Sequence[_Candidate], settings: Settings, length: int) -> None:
    """Keep the best of the texts that have ended, those that ended just now among them."""
    if not search.improving:
        return
    divisor = length**settings.length_penalty
    now = [(float(one.score) / divisor, one.text) for one in best if one.ends]
    ranked = sorted([*search.finished, *now], key=lambda scored: -scored[0])
    search.finished = ranked[: settings.beams]


def _look_ahead(search: _Search, settings: Settings, length: int) -> None:
    """Note whether a running beam may become better than the worst of the texts that have ended."""
    if len(search.finished) < settings.beams:
        return
    hoped = float(search.scores[0]) / length**settings.length_penalty
    search.improving = search.improving and hoped > search.finished[-1][0]
