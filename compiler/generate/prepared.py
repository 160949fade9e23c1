"""From prompts to what the decoder is given: a batch of ids, and what an encoder makes of texts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from operator import index
from typing import cast

import numpy as np

from strop.compiler.generate.prompts import Batch, batch_of
from strop.compiler.generate.text import Tokenizer
from strop.compiler.targets.decoding import Called, Decoder
from strop.compiler.util.errors import UsageError, did_you_mean
from strop.compiler.util.numerics import Array

Arrays = Mapping[str, Array]
Prompt = str | Sequence[int]
Prompts = Prompt | Sequence[Prompt] | Arrays
ENCODER_MASK = "encoder_attention_mask"
"""The decoder's input, [rows, source], for the padding of what the encoder was given."""


@dataclass(frozen=True)
class Encoder:
    """The program that is run once for each batch of texts.

    Attributes:
        inputs: the names of its inputs.
        run: arrays by name, and what comes out by name.
    """

    inputs: Sequence[str]
    run: Callable[[Arrays], Arrays]

    def fixed(self, called: Called, source: Arrays) -> Arrays:
        """The decoder's inputs that stay the same for all tokens, by what the encoder is given."""
        found = self.run(source)
        fixed = {name: found[output] for name, output in called.cross.items()}
        return fixed | ({ENCODER_MASK: source[called.mask]} if called.mask in source else {})


def roles(called: Called, inputs: Mapping[str, Collection[str]]) -> tuple[str, str | None]:
    """The names of the decoder and of its encoder, where it has one.

    Args:
        called: how the decoder is called.
        inputs: of each program, by name.

    Raises:
        UsageError: no program has the caches.
    """
    wanted = {called.ids, *called.caches}
    decoder = next((name for name, given in inputs.items() if wanted <= set(given)), None)
    if decoder is None:
        lacking = min((sorted(wanted - set(given)) for given in inputs.values()), key=len)
        known = sorted({name for given in inputs.values() for name in given})
        raise UsageError(
            f"generation names the input '{lacking[0]}', which the decoder does not have"
            f"{did_you_mean(lacking[0], known)}"
        )
    others = [name for name in inputs if name != decoder]
    return decoder, others[0] if called.cross and others else None


@dataclass(frozen=True)
class Opened:
    """A decoder, with its encoder where it has one, that can be called.

    Attributes:
        called: how the decoder is called.
        vocabulary: how many tokens it scores.
        decoder: opens it with empty caches; takes inputs that are the same in every call.
        encoder: None where prompts are what the decoder goes on with.
        tokenizer: None where prompts are ids.
    """

    called: Called
    vocabulary: int
    decoder: Callable[[Arrays], Decoder]
    encoder: Encoder | None = None
    tokenizer: Tokenizer | None = None


@dataclass(frozen=True)
class Prepared:
    """What a generation starts with.

    Attributes:
        batch: what the decoder is given first.
        before: the tokens of each text before the first new one.
        fixed: the decoder's inputs that are the same in every call, [rows, ...].
    """

    batch: Batch
    before: Sequence[Sequence[int]]
    fixed: Arrays


def prepared(opened: Opened, prompts: Prompts) -> Prepared:
    """Check prompts, and run the encoder where there is one.

    Raises:
        UsageError: a prompt is not as it must be.
        RuntimeRefusedError: the runtime does not run the encoder.
    """
    if opened.encoder is not None:
        return _encoded(opened, opened.encoder, prompts)
    if isinstance(prompts, Mapping):
        raise UsageError(
            "prompts are texts or token ids: this model has no encoder that takes arrays"
        )
    rows = _ids_of(opened, prompts)
    batch = batch_of(rows, opened.called, opened.vocabulary)
    return Prepared(batch, rows, {})


def _encoded(opened: Opened, encoder: Encoder, prompts: Prompts) -> Prepared:
    called = opened.called
    given = prompts if isinstance(prompts, Mapping) else _source(opened, encoder, prompts)
    if set(given) != set(encoder.inputs):
        raise UsageError(
            f"the encoder takes {', '.join(encoder.inputs)}; got {', '.join(given) or 'nothing'}"
        )
    fixed = encoder.fixed(called, given)
    rows = [list(called.start)] * len(next(iter(given.values())))
    return Prepared(batch_of(rows, called, opened.vocabulary), rows, fixed)


def _source(opened: Opened, encoder: Encoder, prompts: Prompt | Sequence[Prompt]) -> Arrays:
    """Texts for an encoder, padded on the right: [rows, source] int64."""
    called = opened.called
    if called.ids not in encoder.inputs:
        raise UsageError(
            f"the encoder takes no text: give a mapping with {', '.join(encoder.inputs)}"
        )
    rows = _ids_of(opened, prompts)
    batch = batch_of([list(reversed(ids)) for ids in rows], called, opened.vocabulary)
    given = {called.ids: batch.ids[:, ::-1], called.mask: batch.mask[:, ::-1]}
    return {name: np.ascontiguousarray(given[name]) for name in given if name in encoder.inputs}


def _ids_of(opened: Opened, prompts: Prompt | Sequence[Prompt]) -> list[list[int]]:
    """The token ids of each prompt.

    Raises:
        UsageError: a prompt is text and there is no tokenizer, or holds what is no token id.
    """
    return [_ids(prompt, opened.tokenizer) for prompt in _as_list(prompts)]


def _ids(prompt: Prompt, tokenizer: Tokenizer | None) -> list[int]:
    if not isinstance(prompt, str):
        return [_id(token) for token in prompt]
    if tokenizer is None:
        raise UsageError(
            "the prompt is text, and there is no tokenizer.json beside the model: give ids"
        )
    return tokenizer.ids(prompt)


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
