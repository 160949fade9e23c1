"""One library for all dialect ops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch._ops import OpOverload

_LIBRARY = torch.library.Library("strop", "DEF")


def define(schema: str) -> Callable[[Callable[..., Any]], OpOverload[Any, Any]]:
    """Register the decorated function as the reference of ``strop::<schema>``."""

    def register(reference: Callable[..., Any]) -> OpOverload[Any, Any]:
        _LIBRARY.define(schema)
        name = schema.split("(", 1)[0]
        _LIBRARY.impl(name, reference, "CompositeImplicitAutograd")
        overload: OpOverload[Any, Any] = getattr(torch.ops.strop, name).default
        return overload

    return register
