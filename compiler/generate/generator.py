"""Prompts in, tokens out: what ``load(OUT).generate(...)`` and ``strop generate`` run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from strop.compiler.generate.beams import beam_search
from strop.compiler.generate.loop import Loop
from strop.compiler.generate.prepared import Opened, Prepared, Prompts, prepared
from strop.compiler.generate.prompts import room
from strop.compiler.generate.settings import Settings
from strop.compiler.generate.text import Writer
from strop.compiler.util.errors import UsageError

# Tokens before the first new one by which its text is told.
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


def generate(opened: Opened, prompts: Prompts, settings: Settings) -> Iterator[Token]:
    """Tokens as they are made, those of one step after each other.

    Args:
        opened: the model.
        prompts: one or more, as text or as token ids; or what the encoder takes, by name.
        settings: how tokens are chosen, and when to stop.

    Raises:
        UsageError: a prompt is not as it must be, or there is no room for the new tokens.
        RuntimeRefusedError: the runtime does not run the model, or its scores are no numbers.
    """
    if settings.stop and opened.tokenizer is None:
        raise UsageError("a stop string needs a tokenizer.json beside the model; it has none")
    start = prepared(opened, prompts)
    count = room(start.batch.longest, settings.max_new, opened.called.context)
    make = _found if settings.beams > 1 else _streamed
    return make(opened, start, settings, count)


def _streamed(opened: Opened, start: Prepared, settings: Settings, count: int) -> Iterator[Token]:
    writers = [Writer(opened.tokenizer, ids[-_BEFORE:], settings.stop) for ids in start.before]
    loop = Loop(opened.decoder(start.fixed), start.batch, opened.called, settings, count)
    for step in loop:
        for row, token in step.items():
            text = writers[row].add(token, loop.ended[row])
            loop.ended[row] |= writers[row].stopped
            yield Token(row, token, text)


def _found(opened: Opened, start: Prepared, settings: Settings, count: int) -> Iterator[Token]:
    decoder = opened.decoder(start.fixed)
    texts = beam_search(decoder, start.batch, opened.called, settings, count)
    for row, tokens in enumerate(texts):
        writer = Writer(opened.tokenizer, start.before[row][-_BEFORE:], ())
        for number, token in enumerate(tokens, 1):
            yield Token(row, token, writer.add(token, number == len(tokens)))
