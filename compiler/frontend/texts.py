"""Texts that the original makes token by token: what the artifact is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from strop.compiler.frontend.allowance import BYTES_PER_SECOND, MULTIPLY_ADDS_PER_SECOND
from strop.compiler.frontend.coverage import CheckScope
from strop.compiler.frontend.generation import Generation
from strop.compiler.frontend.programs import Programs
from strop.compiler.frontend.stepped import Original
from strop.compiler.generate.forced import perplexity
from strop.compiler.generate.loop import Loop
from strop.compiler.generate.prepared import Arrays
from strop.compiler.generate.prompts import Batch, batch_of
from strop.compiler.generate.settings import Settings
from strop.compiler.ir.running import Inputs
from strop.compiler.targets.decoding import Decoder
from strop.compiler.util.arrays import to_array
from strop.compiler.util.numerics import Array

# Tokens of the longest prompt, and how many prompts are beside each other.
PROMPTS = ((1, 1), (7, 3), (128, 1), (7, 1), (128, 3), (1, 3))
NEW, LEAST_NEW = 16, 2
"""Tokens that are made for each prompt, and so many at least where a step is costly."""
# Inputs of an encoder that are tried.
SOURCES = 3
# Texts by which perplexity is taken: rows, and tokens of each.
TEXTS, TEXT, LEAST_TEXT = 4, 48, 8
# Seconds on the nominal machine: of one case, and of all together.
CASE, ALL = 6.0, 18.0


@dataclass(frozen=True)
class Text:
    """What the original makes of some prompts, greedily; tokens that end texts do not end them.

    Attributes:
        name: for messages and the manifest.
        source: what its encoder was given, by name; nothing where there is none.
        fixed: the decoder's inputs that its encoder made of it.
        batch: the prompts.
        tokens: [rows, new] int64.
        scores: of each of the tokens, [new, rows, vocabulary] float32.
    """

    name: str
    source: Arrays
    fixed: Arrays
    batch: Batch
    tokens: Array
    scores: Array


@dataclass(frozen=True)
class Texts:
    """What is known of the original when it generates.

    Attributes:
        generation: how it is called.
        empty: for each cache one row of it without places, [1, heads, 0, size].
        made: texts that it made.
        text: ids by which perplexity is taken, [rows, length]; None where there is no calibration
            text of a decoder, or it would cost too much.
        perplexity: of the original on it.
        left_out: cases that were not run: for their cost, or since the dims do not allow them.
    """

    generation: Generation
    empty: Arrays
    made: Sequence[Text]
    text: Array | None = None
    perplexity: float = 0.0
    left_out: Sequence[str] = field(default_factory=list)


def make_texts(programs: Programs, check: CheckScope) -> Texts | None:
    """Let the original generate; None where it does not.

    Args:
        programs: as the user gave them.
        check: how many cases to run: as many as cost seconds, or all.

    Raises:
        UsageError: the programs are not called as their ``generation`` says.
    """
    called = programs.generation
    if called is None:
        return None
    original = Original(programs, called)
    spending = _Spending(original.decoding.parameters, check)
    make = _from_prompts if original.encoding is None else _from_sources
    with torch.no_grad():
        return make(original, spending)


def _from_prompts(original: Original, spending: _Spending) -> Texts:
    """Texts of a decoder that goes on with prompts, which are parts of the calibration text."""
    called, decoding = original.called, original.decoding
    ids = np.concatenate([_real_ids(one, called) for one in decoding.data])
    text = _calibration_text(ids, original, spending) if decoding.calibration else None
    known = 0.0 if text is None else perplexity(original.decoder({}), text)
    made: list[Text] = []
    left_out: list[str] = []
    for longest, rows in PROMPTS:
        name = f"{rows} x {longest} tokens"
        most = original.room(rows, longest, NEW)
        if new := spending.tokens(rows, longest, most, LEAST_NEW, anyway=not made):
            batch = _padded(ids, longest, rows, called)
            made.append(_made(original, name, {}, batch, new))
        else:
            left_out.append(name)
    return Texts(called, original.empty, made, text, known, left_out)


def _from_sources(original: Original, spending: _Spending) -> Texts:
    """Texts of a decoder that an encoder's inputs decide on."""
    called, encoding = original.called, original.encoding
    assert encoding is not None
    made: list[Text] = []
    left_out: list[str] = []
    for number, given in enumerate(encoding.data[:SOURCES]):
        source = {name: to_array(tensor) for name, tensor in given.items()}
        rows, name = len(next(iter(source.values()))), f"source {number}"
        most = original.room(rows, len(called.start), NEW)
        if new := spending.tokens(rows, len(called.start), most, LEAST_NEW, anyway=not made):
            start = np.array([called.start] * rows, np.int64)
            batch = Batch(start, np.ones_like(start))
            made.append(_made(original, name, source, batch, new))
        else:
            left_out.append(name)
    return Texts(called, original.empty, made, left_out=left_out)


def _made(original: Original, name: str, source: Arrays, batch: Batch, new: int) -> Text:
    """The most likely token at every step, whether it ends texts or not."""
    fixed = original.fixed(source)
    decoder = _Recorded(original.decoder(fixed))
    endless = replace(original.called, eos=())
    steps = list(Loop(decoder, batch, endless, Settings(), new))
    tokens = np.array([[step[row] for step in steps] for row in range(batch.rows)], np.int64)
    return Text(name, source, fixed, batch, tokens, np.stack(decoder.scores))


def _real_ids(inputs: Inputs, called: Generation) -> Array:
    """The ids of one set of inputs that are no padding, row after row."""
    ids = to_array(inputs[called.ids])
    mask = to_array(inputs[called.mask])[:, -ids.shape[1] :]
    real: Array = ids[mask != 0]
    return real


def _padded(ids: Array, longest: int, rows: int, called: Generation) -> Batch:
    """Parts of a text; the first has the full length, each other one half of that before it."""
    lengths = [max(longest >> row, 1) for row in range(rows)]
    starts = np.cumsum([0, *lengths])
    parts = [np.take(ids, range(a, b), mode="wrap") for a, b in zip(starts, starts[1:])]
    return batch_of([part.tolist() for part in parts], called, int(ids.max()) + 1)


def _calibration_text(ids: Array, original: Original, spending: _Spending) -> Array | None:
    """Rows of calibration text, [rows, length]; None where there is too little, or no time."""
    rows = next((n for n in range(TEXTS, 0, -1) if original.room(n, 1, 1)), 0)
    longest = original.room(rows, 1, TEXT - 1) + 1 if rows else 0
    rows = max(min(rows, len(ids) // max(longest, 1)), 1)
    most = min(longest, len(ids) // rows) - 1
    length = spending.tokens(rows, 1, most, LEAST_TEXT) + 1
    return ids[: rows * length].reshape(rows, length) if length > 1 else None


class _Recorded:
    """A decoder that keeps what it gave at every step."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self.scores: list[Array] = []
        self.repeat, self.reorder = decoder.repeat, decoder.reorder

    def step(self, ids: Array, mask: Array) -> Array:
        """One call, as the decoder's own."""
        self.scores.append(self._decoder.step(ids, mask).copy())
        return self.scores[-1]


class _Spending:
    """What texts cost on the nominal machine, by the number of parameters alone."""

    def __init__(self, parameters: int, check: CheckScope) -> None:
        self._parameters, self._all, self._spent = parameters, check == "full", 0.0

    def tokens(self, rows: int, prompt: int, most: int, least: int, *, anyway: bool = False) -> int:
        """How many tokens of each text there is time for; they count as made.

        Args:
            rows: how many texts.
            prompt: tokens before the first one.
            most: what there is room for.
            least: where there is time for fewer, there are none.
            anyway: the least is made whatever it costs.
        """
        first, each = self._seconds(rows * prompt), self._seconds(rows)
        affordable = int((min(CASE, ALL - self._spent) - first) / each)
        new = most if self._all else min(most, affordable)
        if new < least:
            new = least if anyway and most >= least else 0
        self._spent += first + new * each if new else 0.0
        return new

    def _seconds(self, tokens: int) -> float:
        """Of one call: every weight is read once, in float32, and used once for each token."""
        read = 4 * self._parameters / BYTES_PER_SECOND
        return read + tokens * self._parameters / MULTIPLY_ADDS_PER_SECOND
