"""What is known of a value at the positions that a mask calls padding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch.fx.node import Node

Places = tuple[int, int]
"""The batch axis and the axis of positions of a value, counted from the right: -1 is the last."""
Bounds = tuple[float, float] | None
"""The least and the largest number, False and True as 0 and 1; None where not known."""


class Unproven(Exception):
    """Padded positions may reach an output, at a node."""

    def __init__(self, reason: str, node: Node) -> None:
        super().__init__(reason)
        self.reason = reason
        self.node = node


@dataclass(frozen=True)
class PaddingInput:
    """What calls positions padding.

    Attributes:
        mask: an input, [batch, seq].
        value: what it holds at padded positions, 0 or 1; a real one holds something else.
    """

    mask: Node
    value: int


@dataclass(frozen=True)
class Known:
    """Bounds of the elements of a value, at padded positions and at real ones."""

    padded: Bounds
    real: Bounds


@dataclass(frozen=True)
class State:
    """What is known of a value.

    Attributes:
        tokens: the places of its positions, where elements at padded ones may be anything; None
            where no element depends on such elements.
        known: by places, what its elements are whatever the other inputs hold.
    """

    tokens: Places | None = None
    known: Mapping[Places, Known] = field(default_factory=dict)

    def moved(self, to: Callable[[int], int | None], why: str, node: Node) -> State:
        """The state of the same elements under other axes.

        Args:
            to: the new place of an axis; None where it is no axis of its own any more.
            why: what is wrong where the positions are none.
            node: what moves them.

        Raises:
            Unproven: the positions are no axes of their own any more.
        """
        known = {at: value for places, value in self.known.items() if (at := _moved(places, to))}
        tokens = None
        if self.tokens is not None:
            tokens = _moved(self.tokens, to)
            if tokens is None:
                raise Unproven(why, node)
        return State(tokens, known)


def _moved(places: Places, to: Callable[[int], int | None]) -> Places | None:
    batch, seq = to(places[0]), to(places[1])
    return None if batch is None or seq is None or batch == seq else (batch, seq)


CLEAN = State()


def is_leading(places: Places, rank: int) -> bool:
    """Whether a value of this rank is [batch, seq, ...]."""
    return places == (-rank, 1 - rank)


def as_nodes(value: Any) -> list[Node]:
    """The values of the graph in an argument: itself, or those of a list."""
    given = value if isinstance(value, (list, tuple)) else [value]
    return [one for one in given if isinstance(one, Node)]
