"""Tokens that a model's own settings rule out at some place of a text."""

from __future__ import annotations

import numpy as np

from strop.compiler.targets.decoding import Called
from strop.compiler.util.numerics import Array


class Allowed:
    """Lowers the scores of tokens that may not come next, as transformers' processors do."""

    def __init__(self, called: Called, count: int) -> None:
        """Take what is ruled out.

        Args:
            called: says which tokens.
            count: the most tokens to make for each text.
        """
        self._called, self._count = called, count

    def __call__(self, scores: Array, number: int) -> Array:
        """Scores of the next token with -inf where it may not be; given ones stay as they are.

        Args:
            scores: [..., vocabulary] float32.
            number: of the token in its text, from 1.
        """
        called = self._called
        if number == self._count and called.last is not None:
            found = np.full_like(scores, -np.inf)
            found[..., called.last] = 0
            return found
        ruled_out = [*called.suppressed, *(called.suppressed_first if number == 1 else ())]
        if not ruled_out:
            return scores
        found = scores.copy()
        found[..., ruled_out] = -np.inf
        return found
