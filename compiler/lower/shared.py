"""Weights that the programs of one artifact share: each is stored once, by its content."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Stored:
    """A tensor that a program keeps in the file of weights.

    Attributes:
        program: its name.
        bytes: what the tensor takes.
        weights: the names, in the program, of the weights that it is computed from.
        again: whether an equal one was there, so that it took no space.
    """

    program: str
    bytes: int
    weights: frozenset[str]
    again: bool


@dataclass
class SharedWeights:
    """What the file of weights holds; every program that is written adds to it.

    Attributes:
        places: where a tensor begins, by the SHA-256 of its bytes.
        stored: every tensor of every program, in the order in which they were written.
    """

    places: dict[bytes, int] = field(default_factory=dict)
    stored: list[Stored] = field(default_factory=list)

    def bytes_apart(self, owners: Mapping[str, Mapping[str, Collection[int]]]) -> int:
        """Bytes of tensors that come from shared weights, and are still stored for one program.

        Args:
            owners: by program and name of a weight, the shared tensors of the original modules
                that it came from, as numbers; weights that came from others are not there.
        """
        apart, before = 0, dict[frozenset[int], str]()
        for one in self.stored:
            known = owners[one.program]
            if not one.weights or not one.weights <= known.keys():
                continue
            origins = frozenset(number for name in one.weights for number in known[name])
            first = before.setdefault(origins, one.program)
            if first != one.program and not one.again:
                apart += one.bytes
        return apart
