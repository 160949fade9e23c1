"""The user's batches, which can be iterated any number of times."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from strop.compiler.util.errors import UsageError
from strop.compiler.util.user_code import blame, file_of


@dataclass(frozen=True)
class Stream:
    """Batches by name, read as they are needed.

    Attributes:
        source: a sequence, another iterable that can be passed over again, or a function that
            returns an iterator.
        names: of the inputs, in order.
        what: it is, as the user calls it: ``calibration`` or ``train``.
    """

    source: Any
    names: tuple[str, ...]
    what: str

    def __post_init__(self) -> None:
        """Refuse what is no stream.

        Raises:
            UsageError: it cannot be iterated, or only once.
        """
        if callable(self.source):
            return
        if not isinstance(self.source, Iterable) or isinstance(self.source, (Mapping, str)):
            raise UsageError(
                f"{self.what} is {type(self.source).__name__}; give a list of batches, or a "
                "function that returns an iterator of them"
            )
        if isinstance(self.source, Iterator):
            raise UsageError(
                f"{self.what} is {type(self.source).__name__}, which is exhausted after one pass "
                f"over it; give a list, or the function that makes it: {self.what}=lambda: ..."
            )

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        """Each batch by name: the inputs first, then what the loss wants.

        Raises:
            UsageError: the user's code raises, a batch is not as it must be, or there is none.
        """
        count = 0
        for count, batch in enumerate(self._batches(), 1):
            yield self._named(batch, f"{self.what}[{count - 1}]")
        if not count:
            raise UsageError(
                f"{self.what} gives no batch; if it did before, it is exhausted after one pass: "
                "return a new iterator each time"
            )

    def _batches(self) -> Iterator[Any]:
        try:
            yield from self.source() if callable(self.source) else self.source
        except Exception as error:  # the user's code may raise anything
            raise UsageError(f"{self.what} raised {blame(error, file_of(self.source))}") from error

    def _named(self, batch: Any, what: str) -> dict[str, torch.Tensor]:
        if isinstance(batch, (tuple, list)) and len(batch) == len(self.names):
            batch = dict(zip(self.names, batch))
        if not isinstance(batch, Mapping):
            raise UsageError(
                f"{what} is {type(batch).__name__}; a batch is a mapping with the inputs "
                f"({', '.join(self.names)}) and what the loss wants"
            )
        missing = [name for name in self.names if name not in batch]
        if missing:
            raise UsageError(f"{what} has {', '.join(map(str, batch))}; it lacks '{missing[0]}'")
        for name, tensor in batch.items():
            if not isinstance(tensor, torch.Tensor):
                raise UsageError(f"{what}['{name}'] is {type(tensor).__name__}, not a tensor")
        rest = {name: tensor for name, tensor in batch.items() if name not in self.names}
        return {name: batch[name] for name in self.names} | rest


@dataclass(frozen=True)
class SequenceStream(Stream, Sequence[dict[str, torch.Tensor]]):
    """Batches of which each can be asked for by its place, so that training may shuffle them."""

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, place: Any) -> Any:
        return self._named(self.source[place], f"{self.what}[{place}]")


def stream(source: Any, names: tuple[str, ...], what: str) -> Stream | None:
    """A stream of what the user gave; None where that is None."""
    if source is None:
        return None
    kind = SequenceStream if isinstance(source, Sequence) else Stream
    return kind(source, names, what)
