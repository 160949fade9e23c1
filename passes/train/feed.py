"""The order in which batches are trained on, and those that are held out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count, islice

import torch

from strop.compiler.rewriting.context import Batch, Batches, mixed, seed_all
from strop.compiler.util.errors import UsageError
from strop.passes.train.policy import Policy

Numbered = tuple[int, Batch]
"""A batch with its place in the user's data."""
Place = tuple[int, int]
"""An epoch, and how many of its batches were taken."""


class Feed:
    """Batches for training, the same for the same seed, epoch and place in it.

    A sequence is shuffled anew in every epoch; any other iterable keeps its order. Every k-th batch
    is held out, by its place, and never trained on.

    Attributes:
        held_out: the batches that judge the weights.
    """

    def __init__(self, batches: Batches, policy: Policy, what: str) -> None:
        """Choose what to hold out.

        Args:
            batches: a sequence, or what can be iterated any number of times.
            policy: the seed, and how much is held out.
            what: the data is, as the user calls it: "train".

        Raises:
            UsageError: the batches can be iterated once only, as a generator can.
        """
        if isinstance(batches, Iterator):
            raise UsageError(
                f"{what} is {type(batches).__name__}, which is exhausted after one pass over it; "
                "give a list, or a function that returns an iterator"
            )
        self._batches, self._policy, self._what = batches, policy, what
        self._every = round(1 / policy.held_out) if policy.held_out else 0
        self.held_out: list[Numbered] = list(self._validation())
        self._last = max((place for place, _ in self.held_out), default=-1)

    def endless(self, epoch: int, skip: int) -> Iterator[tuple[Place, Numbered]]:
        """Batches of one epoch after the other, without the first ``skip`` of the first one.

        Raises:
            UsageError: an epoch has none.
        """
        while True:
            taken = 0
            for taken, item in enumerate(self._seeded(epoch), 1):
                if taken > skip:
                    yield (epoch, taken), item
            if not taken:
                raise UsageError(
                    f"{self._what} gives no batch to train on in pass {epoch + 1} over it; if it "
                    "did before, it is exhausted after one pass: return a new iterator each time"
                )
            epoch, skip = epoch + 1, 0

    def _seeded(self, epoch: int) -> Iterator[Numbered]:
        """The batches of an epoch; what the user's code draws for one depends on its place alone.

        So a training that is resumed, and skips batches, sees the same ones.
        """
        items = self._epoch(epoch)
        for place in count():
            seed_all(mixed(self._policy.seed, "batch", epoch, place))
            item = next(items, None)
            if item is None:
                return
            yield item

    def length(self) -> int:
        """How many batches an epoch has; passes over the data if it is no sequence."""
        if isinstance(self._batches, Sequence):
            return len(self._batches) - len(self.held_out)
        return sum(1 for _ in self._batches) - len(self.held_out)

    def _epoch(self, number: int) -> Iterator[Numbered]:
        if isinstance(self._batches, Sequence):
            trained = [i for i in range(len(self._batches)) if not self._is_held_out(i)]
            order = _shuffled(trained, self._policy.seed, number)
            return ((place, self._batches[place]) for place in order)
        return (item for item in enumerate(self._batches) if not self._is_held_out(item[0]))

    def _validation(self) -> Iterator[Numbered]:
        """Every k-th batch, until there are enough."""
        if not self._every or not self._policy.most_held_out:
            return iter(())
        places = islice(range(self._every - 1, 1 << 62, self._every), self._policy.most_held_out)
        if isinstance(self._batches, Sequence):
            size = len(self._batches)
            return ((place, self._batches[place]) for place in places if place < size)
        chosen = islice(enumerate(self._batches), self._every - 1, None, self._every)
        return islice(chosen, self._policy.most_held_out)

    def _is_held_out(self, place: int) -> bool:
        return bool(self._every) and place <= self._last and (place + 1) % self._every == 0


def _shuffled(places: list[int], seed: int, epoch: int) -> list[int]:
    generator = torch.Generator().manual_seed(mixed(seed, "order", epoch))
    order: list[int] = torch.randperm(len(places), generator=generator).tolist()
    return [places[i] for i in order]
