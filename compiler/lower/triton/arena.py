"""Slots of one arena: buffers that are never alive together share memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from strop.compiler.lower.triton.memory import Buffer


@dataclass(frozen=True)
class Life:
    """From which step to which step a buffer holds something, both included."""

    first: int
    last: int


def lives(uses: Iterable[tuple[int, int]]) -> dict[int, Life]:
    """The life of each buffer.

    Args:
        uses: pairs of a step and a buffer that it reads or writes, in the order of steps.
    """
    found: dict[int, Life] = {}
    for step, buffer in uses:
        known = found.get(buffer, Life(step, step))
        found[buffer] = Life(known.first, max(known.last, step))
    return found


@dataclass
class Slot:
    """A piece of the arena.

    Attributes:
        sizes: in bytes, as text; it has the largest.
        hint: its size at the sizes that were captured.
        free_after: the last step that uses what lies in it.
    """

    sizes: dict[str, None] = field(default_factory=dict)
    hint: int = 0
    free_after: int = -1

    def take(self, buffer: Buffer, until: int) -> None:
        """Give it to a buffer."""
        self.sizes[buffer.bytes] = None
        self.hint = max(self.hint, buffer.hint)
        self.free_after = until


def assign(buffers: Sequence[Buffer], alive: Mapping[int, Life]) -> tuple[list[Slot], list[int]]:
    """Slots, and by buffer the number of its slot.

    A buffer gets the free slot whose size, as captured, is nearest to its own.
    """
    slots: list[Slot] = []
    taken = [0] * len(buffers)
    for number in sorted(alive, key=lambda b: (alive[b].first, b)):
        buffer, life = buffers[number], alive[number]
        free = [i for i, slot in enumerate(slots) if slot.free_after < life.first]
        if not free:
            free = [len(slots)]
            slots.append(Slot())
        best = min(free, key=lambda i: (abs(slots[i].hint - buffer.hint), i))
        slots[best].take(buffer, life.last)
        taken[number] = best
    return slots, taken
