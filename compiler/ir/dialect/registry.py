"""One library for all dialect ops."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch._ops import OpOverload

_LIBRARY = torch.library.Library("strop", "DEF")
# What an input's constant is stored in: a dtype, or the argument that holds the number of bits.
_STORED: dict[tuple[Any, str], torch.dtype | str] = {}
_SPANNING: set[Any] = set()
_REFERENCES: dict[Any, Callable[..., Any]] = {}
# Bits that whole numbers are packed in: those of 3 bits take 4.
PACKED_BITS = (2, 4, 8)


def define(
    schema: str,
    stored: Mapping[str, torch.dtype | str] | None = None,
    spans_batch: bool = False,
) -> Callable[[Callable[..., Any]], OpOverload[Any, Any]]:
    """Register the decorated function as the reference of ``strop::<schema>``.

    ``stored`` names the inputs whose constants a file holds in another dtype than the IR does; a
    text names the argument that gives their bits. ``spans_batch`` says that what it gives for one
    row depends on all others of the tensor.
    """

    def register(reference: Callable[..., Any]) -> OpOverload[Any, Any]:
        _LIBRARY.define(schema)
        name = schema.split("(", 1)[0]
        _LIBRARY.impl(name, reference, "CompositeImplicitAutograd")
        overload: OpOverload[Any, Any] = getattr(torch.ops.strop, name).default
        _REFERENCES[overload] = reference
        _STORED.update({(overload, i): dtype for i, dtype in (stored or {}).items()})
        if spans_batch:
            _SPANNING.add(overload)
        return overload

    return register


def reference_of(target: OpOverload[Any, Any]) -> Callable[..., Any]:
    """The plain torch function that says what an operator of the dialect means."""
    return _REFERENCES[target]


def stored_bits(target: Any, name: str, arguments: Mapping[str, Any]) -> int | None:
    """Bits in which an operator's constant input is stored, where those are not its dtype's.

    Args:
        target: the operator.
        name: of the input.
        arguments: of the call, by name.
    """
    kept = _STORED.get((target, name))
    if isinstance(kept, str):
        return packed_bits(arguments[kept])
    return None if kept is None else kept.itemsize * 8


def packed_bits(bits: int) -> int:
    """Bits that a whole number of so many bits takes where it is packed with others."""
    return next(width for width in PACKED_BITS if width >= bits)


def spans_batch(target: Any) -> bool:
    """Whether what an operator gives for one row of a batch depends on the other rows."""
    return target in _SPANNING
