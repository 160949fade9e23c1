"""Which memory the fake tensors of a lowering stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from strop.compiler.lower.triton.expressions import Expressions
from strop.compiler.lower.triton.names import Names
from strop.compiler.lower.triton.refusal import NotLowered
from strop.compiler.targets.triton.plan import DTYPE_NAMES, TensorValues

Kind = Literal["input", "weight", "buffer", "made"]


@dataclass(frozen=True)
class Place:
    """A piece of memory.

    Attributes:
        of: an input, a weight, what a launcher asked for, or what torch makes.
        number: which one of its kind.
    """

    of: Kind
    number: int


@dataclass(frozen=True)
class Buffer:
    """What a launcher asked for; it will lie in the arena.

    Attributes:
        bytes: its size as text.
        hint: its size at the sizes that were captured.
    """

    bytes: str
    hint: int


class Memory:
    """Gives numbers to pieces of memory and to the views of them.

    Attributes:
        values: every view that a step names; those of buffers have the buffer's number.
        buffers: what launchers asked for.
    """

    def __init__(self, expressions: Expressions) -> None:
        self.expressions = expressions
        self.values: list[tuple[Place, TensorValues]] = []
        self.buffers: list[Buffer] = []
        self._made = 0
        # The tensors are kept: the address of a storage belongs to a living one only.
        self._places: dict[int, tuple[Tensor, Place]] = {}
        self._named: dict[Place, str] = {}
        self._numbers: dict[Any, int] = {}
        self._names = Names()

    def put(self, tensor: Tensor, place: Place, name: str) -> None:
        """Say which memory a tensor's storage stands for, and what that is called."""
        self._places[storage_address(tensor)] = (tensor, place)
        self._named[place] = name

    def put_made(self, tensor: Tensor, name: str) -> None:
        """Say that torch makes a tensor when the plan runs."""
        self.put(tensor, Place("made", self._made), name)
        self._made += 1

    def is_known(self, tensor: Tensor) -> bool:
        """Whether a tensor is a view of memory that is there already."""
        return storage_address(tensor) in self._places

    def place(self, tensor: Tensor, name: str) -> Place:
        """The memory that a tensor is a view of; a new buffer of a name where there is none yet."""
        if not self.is_known(tensor):
            size = tensor.untyped_storage().nbytes()
            hint = size if isinstance(size, int) else size.node.hint or 1
            self.buffers.append(Buffer(self.expressions.text(size), int(hint)))
            self.put(tensor, Place("buffer", len(self.buffers) - 1), name)
        return self._places[storage_address(tensor)][1]

    def value(self, tensor: Tensor, name: str = "") -> int:
        """The number of a view; memory that is new gets the name.

        Raises:
            NotLowered: its dtype or sizes cannot be held by a plan.
        """
        if tensor.dtype not in DTYPE_NAMES:
            raise NotLowered(f"it computes with {tensor.dtype}")
        place, text = self.place(tensor, name), self.expressions.text
        # What torch makes on fake tensors may begin within memory that no plan has.
        first = self._places[storage_address(tensor)][0].storage_offset()
        key = (
            place,
            tensor.dtype,
            tuple(text(s) for s in tensor.shape),
            tuple(text(s) for s in tensor.stride()),
            text(tensor.storage_offset() - first),
        )
        if key not in self._numbers:
            self._numbers[key] = len(self.values)
            self.values.append((place, self._described(key)))
        return self._numbers[key]

    @property
    def extent(self) -> tuple[int, int]:
        """How many values and buffers there are; for ``cut``."""
        return len(self.values), len(self.buffers)

    def cut(self, extent: tuple[int, int]) -> None:
        """Take back the values and buffers that were added since: no step names them any more."""
        values, buffers = extent
        del self.values[values:], self.buffers[buffers:]
        self._numbers = {key: n for key, n in self._numbers.items() if n < values}

    def _described(self, key: Any) -> TensorValues:
        place, dtype, shape, stride, offset = key
        return TensorValues(
            name=self._names.unique(self._named[place]),
            of="slot" if place.of == "buffer" else place.of,
            number=place.number,
            dtype=DTYPE_NAMES[dtype],
            shape=list(shape),
            stride=list(stride),
            offset=offset,
        )


def storage_address(tensor: Tensor) -> int:
    """What tells the memory of a living tensor from all others; views share it."""
    address: int = tensor.untyped_storage()._cdata
    return address


def has_unit_stride(tensor: Tensor) -> bool:
    """Whether elements of the last axis are neighbours, at every size."""
    last = tensor.stride(-1) if tensor.dim() else 1
    return not isinstance(last, torch.SymInt) and last == 1
