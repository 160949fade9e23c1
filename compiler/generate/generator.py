"""Prompts in, tokens out: what ``load(OUT).generate(...)`` and ``strop generate`` run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import index
from typing import cast

import numpy as np

from strop.compiler.generate.beams import beam_search
from strop.compiler.generate.loop import Loop
from strop.compiler.generate.prompts import Batch, batch_of, room
from strop.compiler.generate.settings import Settings
from strop.compiler.generate.text import Tokenizer, Writer
from strop.compiler.targets.decoding import Called, Decoder
from strop.compiler.util.errors import UsageError

Prompt = str | Sequence[int]
# Tokens of a prompt by which the text of the first new one is told.
_BEFORE = 8


@dataclass(frozen=True)
class Token:
    """One new token of one text.

    Attributes:
        row: the number of the prompt, from 0.
        id: of the token; that which ends a text is given too.
        text: what became certain by it; text of a token may come with a later one. Texts one
            after the other are the whole.
    """

    row: int
    id: int
    text: str = ""


class Generator:
    """A decoder that texts can be made with."""

    def __init__(
        self,
        open_decoder: Callable[[], Decoder],
        called: Called,
        vocabulary: int,
        tokenizer: Tokenizer | None,
    ) -> None:
        """Keep what is needed for each call.

        Args:
            open_decoder: gives the decoder with empty caches.
            called: how it is called.
            vocabulary: how many tokens it scores.
            tokenizer: None where prompts are ids.
        """
        self._open, self._called = open_decoder, called
        self._vocabulary, self._tokenizer = vocabulary, tokenizer

    def generate(self, prompts: Prompt | Sequence[Prompt], settings: Settings) -> Iterator[Token]:
        """Tokens as they are made, those of one step after each other.

        Args:
            prompts: one or more, as text or as token ids.
            settings: how tokens are chosen, and when to stop.

        Raises:
            UsageError: a prompt is not as it must be, or there is no room for the new tokens.
            RuntimeRefusedError: the runtime does not run the decoder, or its scores are no numbers.
        """
        if settings.stop and self._tokenizer is None:
            raise UsageError("a stop string needs a tokenizer.json beside the model; it has none")
        rows = [self._ids(prompt) for prompt in _as_list(prompts)]
        batch = batch_of(rows, self._called, self._vocabulary)
        count = room(batch.longest, settings.max_new, self._called.context)
        if settings.beams > 1:
            return self._found(rows, batch, settings, count)
        return self._streamed(rows, batch, settings, count)

    def _ids(self, prompt: Prompt) -> list[int]:
        if not isinstance(prompt, str):
            return [_id(token) for token in prompt]
        if self._tokenizer is None:
            raise UsageError(
                "the prompt is text, and there is no tokenizer.json beside the model: give ids"
            )
        return self._tokenizer.ids(prompt)

    def _streamed(
        self, prompts: Sequence[Sequence[int]], batch: Batch, settings: Settings, count: int
    ) -> Iterator[Token]:
        writers = [Writer(self._tokenizer, ids[-_BEFORE:], settings.stop) for ids in prompts]
        loop = Loop(self._open(), batch, self._called, settings, count)
        for step in loop:
            for row, token in step.items():
                text = writers[row].add(token, loop.ended[row])
                loop.ended[row] |= writers[row].stopped
                yield Token(row, token, text)

    def _found(
        self, prompts: Sequence[Sequence[int]], batch: Batch, settings: Settings, count: int
    ) -> Iterator[Token]:
        texts = beam_search(self._open(), batch, self._called, settings, count)
        for row, tokens in enumerate(texts):
            writer = Writer(self._tokenizer, prompts[row][-_BEFORE:], ())
            for number, token in enumerate(tokens, 1):
                yield Token(row, token, writer.add(token, number == len(tokens)))


def _as_list(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    """One prompt as a list of one."""
    single = isinstance(prompts, str) or not len(prompts) or _is_id(prompts[0])
    return [cast(Prompt, prompts)] if single else list(cast(Sequence[Prompt], prompts))


def _is_id(value: object) -> bool:
    return not isinstance(value, str) and np.ndim(value) == 0  # type: ignore[arg-type]


def _id(token: object) -> int:
    """A token id, of Python, NumPy or torch.

    Raises:
        UsageError: it is no whole number.
    """
    try:
        return index(token)  # type: ignore[arg-type]
    except TypeError as error:
        raise UsageError(f"a prompt holds {token!r}; token ids are whole numbers") from error
