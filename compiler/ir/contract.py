"""What a caller may rely on: named inputs and outputs, and the dims that vary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

DTYPE_NAMES: dict[torch.dtype, str] = {
    torch.float32: "f32",
    torch.float64: "f64",
    torch.float16: "f16",
    torch.bfloat16: "bf16",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.int16: "i16",
    torch.int8: "i8",
    torch.uint8: "u8",
    torch.bool: "bool",
    torch.complex64: "c64",
}


@dataclass(frozen=True)
class Dim:
    """A named dynamic dimension and the sizes it may take; ``max=None`` is unbounded."""

    name: str
    min: int
    max: int | None


def dims_of(size: str) -> tuple[str, ...]:
    """The dims whose sum a size is: of ``past + seq`` the two, of a dim itself."""
    parts = size.split("+")
    return tuple(part.strip() for part in parts) if len(parts) > 1 else (size,)


def size_at(size: int | str, sizes: Mapping[str, int]) -> int | None:
    """A size of a tensor at sizes of the dims; None where it is no dim and no sum of dims."""
    if isinstance(size, int):
        return size
    parts = [sizes.get(dim, int(dim) if dim.isdecimal() else None) for dim in dims_of(size)]
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


@dataclass(frozen=True)
class Padded:
    """Which positions of an output, [batch, seq, ...], hold zeros and not what the model gives.

    Attributes:
        mask: the name of an input, [batch, seq].
        value: what it holds at these positions, 0 or 1.
    """

    mask: str
    value: int


@dataclass(frozen=True)
class Stored:
    """How a cache, [batch, heads, places, size], is kept where that is not as the model has it.

    Attributes:
        of: the short name of the model's own dtype.
        scales: of whole numbers, one for each channel of each head, [heads * size]; the model's
            numbers are these times the whole ones. Without any, numbers are rounded to the dtype.
    """

    of: str
    scales: tuple[float, ...] = ()


@dataclass(frozen=True)
class TensorSpec:
    """One input or output: its name, short dtype name, and sizes (numbers or dim expressions).

    Attributes:
        padded: positions that hold zeros, of an output that has such.
        stored: how it is kept, of a cache that a pass keeps in another dtype than the model.
        tap: it is no output of the user's, but a value inside that a pass looks at while it learns.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    tap: bool = False
    padded: Padded | None = None
    stored: Stored | None = None


@dataclass(frozen=True)
class Contract:
    """What the caller may rely on: named inputs and outputs, and the named dynamic dims."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    dims: tuple[Dim, ...]
