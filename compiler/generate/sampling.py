"""Choose the next token of every text by its scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from strop.compiler.generate.settings import Settings
from strop.compiler.util.errors import RuntimeRefusedError
from strop.compiler.util.numerics import Array

# Tokens among which those of top-p are looked for first.
_FEW = 256


class Chooser:
    """Chooses tokens by the settings; every text draws from random numbers of its own."""

    def __init__(self, settings: Settings, rows: int) -> None:
        self.settings = settings
        self._random = [np.random.default_rng([settings.seed, row]) for row in range(rows)]

    def __call__(self, logits: Array, rows: Sequence[int]) -> list[int]:
        """The next token of each of some texts.

        Args:
            logits: [all texts, vocabulary] float32.
            rows: the numbers of the texts.

        Raises:
            RuntimeRefusedError: the scores are no numbers.
        """
        best = [int(logits[row].argmax()) for row in rows]
        # The place of a NaN is what argmax gives where there is one.
        for row, token in zip(rows, best):
            require_number(logits[row, token], row)
        if not self.settings.temperature:
            return best
        return [self._drawn(logits[row], row) for row in rows]

    def _drawn(self, logits: Array, row: int) -> int:
        tokens, weights = candidates(logits, self.settings)
        sums = np.cumsum(weights)
        place = np.searchsorted(sums, self._random[row].random() * sums[-1], side="right")
        return int(tokens[min(int(place), len(tokens) - 1)])


def require_number(score: float, row: int) -> None:
    """Check the largest score of a text.

    Raises:
        RuntimeRefusedError: it is NaN or an infinity.
    """
    if not np.isfinite(score):
        raise RuntimeRefusedError(
            f"the model gives {score} as the score of the next token of text {row}: its weights or "
            "its caches hold numbers that are too large or are none"
        )


def candidates(logits: Array, settings: Settings) -> tuple[Array, Array]:
    """The tokens to draw from, and their weights.

    Temperature comes first, then top-k, then top-p of what is left, as in transformers. Tokens are
    sorted, most likely first, where some are left out; else they are all, in order.
    """
    if 0 < settings.top_k < len(logits):
        tokens = _likeliest(logits, settings.top_k)
        weights = _weights(logits[tokens], settings.temperature)
        return _within(tokens, weights, settings.top_p, float(weights.sum()))
    weights = _weights(logits, settings.temperature)
    if settings.top_p == 1:
        return np.arange(len(weights)), weights
    return _nucleus(weights, settings.top_p)


def _weights(logits: Array, temperature: float) -> Array:
    """Probabilities but for a factor, float64: of sums of many of them, small ones count too."""
    scaled = (logits - logits.max()) / np.float32(temperature)
    weights: Array = np.exp(scaled).astype(np.float64)
    return weights


def _likeliest(scores: Array, count: int) -> Array:
    """So many tokens, most likely first; of equal ones the lowest first."""
    tokens = np.sort(np.argpartition(scores, -count)[-count:])
    ordered: Array = tokens[np.argsort(-scores[tokens], kind="stable")]
    return ordered


def _nucleus(weights: Array, share: float) -> tuple[Array, Array]:
    """The most likely tokens that have a share of the weight; few are looked at where few do."""
    total, count = float(weights.sum()), _FEW
    while count < len(weights):
        tokens = _likeliest(weights, count)
        if float(weights[tokens].sum()) >= share * total:
            return _within(tokens, weights[tokens], share, total)
        count *= 8
    tokens = _likeliest(weights, len(weights))
    return _within(tokens, weights[tokens], share, total)


def _within(tokens: Array, weights: Array, share: float, total: float) -> tuple[Array, Array]:
    """Of tokens, most likely first, those before which less than a share of the total stands."""
    before = np.cumsum(weights) - weights
    kept = max(int(np.count_nonzero(before < share * total)), 1)
    return tokens[:kept], weights[:kept]
