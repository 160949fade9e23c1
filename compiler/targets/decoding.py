"""A decoder with caches, as a runtime opens it and the loop over tokens calls it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from strop.compiler.util.numerics import Array


@dataclass(frozen=True)
class Names:
    """What a runtime must know of a decoder; ``Generation`` says what the first values mean.

    Attributes:
        prefill: the name after which a second file of the same program is named, which is faster
            at many new tokens; "" where there is none.
    """

    ids: str
    mask: str
    logits: str
    caches: Mapping[str, str]
    context: int
    prefill: str = ""


class Called(Protocol):
    """How a decoder is called token by token; ``Generation`` says what each value means."""

    @property
    def caches(self) -> Mapping[str, str]: ...  # noqa: D102

    @property
    def context(self) -> int: ...  # noqa: D102

    @property
    def eos(self) -> Sequence[int]: ...  # noqa: D102

    @property
    def pad(self) -> int: ...  # noqa: D102

    @property
    def bos(self) -> int | None: ...  # noqa: D102

    @property
    def start(self) -> Sequence[int]: ...  # noqa: D102

    @property
    def suppressed(self) -> Sequence[int]: ...  # noqa: D102

    @property
    def suppressed_first(self) -> Sequence[int]: ...  # noqa: D102

    @property
    def last(self) -> int | None: ...  # noqa: D102

    @property
    def ids(self) -> str: ...  # noqa: D102

    @property
    def mask(self) -> str: ...  # noqa: D102

    @property
    def logits(self) -> str: ...  # noqa: D102

    @property
    def cross(self) -> Mapping[str, str]: ...  # noqa: D102


def names_of(called: Called, prefill: str = "") -> Names:
    """The part of it that a runtime must know; ``prefill`` as in ``Names``."""
    caches = dict(called.caches)
    return Names(called.ids, called.mask, called.logits, caches, called.context, prefill)


@dataclass(frozen=True)
class Start:
    """Inputs of a decoder before its first call.

    Attributes:
        empty: for each cache one row of it without places, [1, heads, 0, size].
        fixed: inputs that are the same in every call, [rows, ...].
    """

    empty: Mapping[str, Array]
    fixed: Mapping[str, Array] = field(default_factory=dict)


class Decoder(Protocol):
    """A decoder with the caches of one batch of texts, which are empty at first."""

    def step(self, ids: Array, mask: Array) -> Array:
        """Add tokens to every text, and score what comes next.

        Args:
            ids: [rows, seq] int64, the new tokens.
            mask: [rows, past + seq] int64, 0 at padding.

        Returns:
            Scores of the next token, [rows, vocabulary] float32; the next call may overwrite them.

        Raises:
            RuntimeRefusedError: the runtime does not run it.
        """
        ...

    def repeat(self, times: int) -> None:
        """Go on with each text so many times, the copies beside each other."""
        ...

    def reorder(self, rows: Sequence[int]) -> None:
        """Go on with as many texts, each a copy of an old one that was repeated from the same.

        Args:
            rows: the number of an old one for each of the new ones.
        """
        ...


class FedDecoder:
    """A decoder that is fed all its caches in every call, and copies them: for any runtime."""

    def __init__(
        self,
        run: Callable[[Mapping[str, Array]], Mapping[str, Array]],
        names: Names,
        start: Start,
    ) -> None:
        """Start with empty caches.

        Args:
            run: one call: arrays by name, and what comes out by name.
            names: of its inputs and outputs.
            start: its inputs before the first call.
        """
        self._run, self._names = run, names
        self._caches, self._fixed = dict(start.empty), dict(start.fixed)

    def step(self, ids: Array, mask: Array) -> Array:
        """One call; see ``Decoder.step``."""
        names = self._names
        if not all(len(cache) == len(ids) for cache in self._caches.values()):
            self._caches = {n: cache.repeat(len(ids), 0) for n, cache in self._caches.items()}
        found = self._run({names.ids: ids, names.mask: mask, **self._caches, **self._fixed})
        self._caches = {name: found[names.caches[name]] for name in self._caches}
        return found[names.logits][:, -1].astype(np.float32, copy=False)

    def repeat(self, times: int) -> None:
        """Repeat caches and fixed inputs."""
        self._caches = {n: cache.repeat(times, 0) for n, cache in self._caches.items()}
        self._fixed = {n: array.repeat(times, 0) for n, array in self._fixed.items()}

    def reorder(self, rows: Sequence[int]) -> None:
        """Choose rows of the caches."""
        self._caches = {n: cache[list(rows)] for n, cache in self._caches.items()}
