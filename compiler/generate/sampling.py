"""Choose the next token of every text by its scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from strop.compiler.generate.settings import Settings
from strop.compiler.util.errors import RuntimeRefusedError
from strop.compiler.util.numerics import Array


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
    """The tokens to draw from, most likely first, and their weights, which sum up to at most 1.

    Temperature comes first, then top-k, then top-p of what is left, as in transformers.
    """
    scores = logits.astype(np.float64) / settings.temperature
    tokens = np.arange(len(scores))
    if 0 < settings.top_k < len(scores):
        tokens = np.sort(np.argpartition(scores, -settings.top_k)[-settings.top_k :])
    tokens = tokens[np.argsort(-scores[tokens], kind="stable")]
    weights = np.exp(scores[tokens] - scores[tokens[0]])
    weights /= weights.sum()
    before = np.cumsum(weights) - weights
    kept = max(int(np.count_nonzero(before < settings.top_p)), 1)
    return tokens[:kept], weights[:kept]
