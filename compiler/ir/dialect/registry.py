"""One library for all dialect ops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._ops import OpOverload

_LIBRARY = torch.library.Library("strop", "DEF")
_STORED: dict[tuple[Any, str], torch.dtype] = {}


def define(
    schema: str, stored: dict[str, torch.dtype] | None = None
) -> Callable[[Callable[..., Any]], OpOverload[Any, Any]]:
    """Register the decorated function as the reference of ``strop::<schema>``.

    ``stored`` names the inputs whose constants a file holds in another dtype than the IR does.
    """

    def register(reference: Callable[..., Any]) -> OpOverload[Any, Any]:
        _LIBRARY.define(schema)
        name = schema.split("(", 1)[0]
        _LIBRARY.impl(name, reference, "CompositeImplicitAutograd")
        overload: OpOverload[Any, Any] = getattr(torch.ops.strop, name).default
        _STORED.update({(overload, i): dtype for i, dtype in (stored or {}).items()})
        return overload

    return register


def stored_dtype(target: Any, name: str) -> torch.dtype | None:
    """The dtype in which an operator's constant input is stored, where that is not its own."""
    return _STORED.get((target, name))
