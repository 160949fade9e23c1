"""The loop: one call of the decoder for each new token of all texts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from strop.compiler.generate.allowed import Allowed
from strop.compiler.generate.prompts import Batch
from strop.compiler.generate.sampling import Chooser
from strop.compiler.generate.settings import Settings
from strop.compiler.targets.decoding import Called, Decoder


class Loop:
    """Tokens of a batch of texts, step by step; whoever reads them may end a text.

    Attributes:
        ended: for each text, whether no more tokens are made for it.
    """

    def __init__(
        self, decoder: Decoder, batch: Batch, called: Called, settings: Settings, count: int
    ) -> None:
        """Start it.

        Args:
            decoder: with empty caches.
            batch: the prompts.
            called: says which tokens end a text.
            settings: how tokens are chosen.
            count: the most tokens to make for each text.
        """
        self.ended = [False] * batch.rows
        self._decoder, self._called, self._count = decoder, called, count
        self._allowed = Allowed(called, count)
        self._choose, self._ids = Chooser(settings, batch.rows), batch.ids
        new = np.ones((batch.rows, count), np.int64)
        self._mask, self._total = np.concatenate([batch.mask, new], 1), batch.longest

    def __iter__(self) -> Iterator[dict[int, int]]:
        """The tokens of each step, by the number of the text; ended texts have none.

        A token that ends a text is given, and sets ``ended`` before it is.

        Raises:
            RuntimeRefusedError: the runtime does not run the decoder, or its scores are no numbers.
        """
        for number in range(1, self._count + 1):
            scores = self._decoder.step(self._ids, self._mask[:, : self._total])
            rows = [row for row, ended in enumerate(self.ended) if not ended]
            tokens = dict(zip(rows, self._choose(self._allowed(scores, number), rows)))
            for row, token in tokens.items():
                self.ended[row] = token in self._called.eos or number == self._count
            yield tokens
            if all(self.ended):
                return
            self._add(tokens)

    def _add(self, tokens: dict[int, int]) -> None:
        """What is given next; texts without a token go on with padding, which nobody reads."""
        self._ids = np.full((len(self.ended), 1), self._called.pad, np.int64)
        for row, token in tokens.items():
            self._ids[row, 0] = token
        self._total += 1
