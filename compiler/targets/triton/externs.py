"""Calls of ATen's operators as data: their arguments encoded and decoded."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch._ops import OpOverload

from strop.compiler.targets.triton.plan import DTYPE_NAMES, DTYPES
from strop.compiler.util.errors import UsageError
from strop.compiler.util.operators import listed_operator, require_kinds

_FLOATS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_TORCH: dict[str, Any] = {
    str(v).removeprefix("torch."): v
    for v in (
        torch.contiguous_format, torch.preserve_format, torch.channels_last,
        torch.channels_last_3d, torch.strided,
    )
}  # fmt: skip
# Another device than the plan's own is not known here.
DEVICE = "own"


def encode(value: Any, other: Callable[[Any], dict[str, Any]]) -> Any:
    """An argument as JSON values.

    Args:
        value: of the call.
        other: encodes tensors and symbolic sizes, and refuses what plans cannot hold.
    """
    if isinstance(value, (list, tuple)):
        return [encode(v, other) for v in value]
    if isinstance(value, torch.dtype) and value in DTYPE_NAMES:
        return {"dtype": DTYPE_NAMES[value]}
    if isinstance(value, torch.device):
        return {"device": DEVICE}
    if isinstance(value, (torch.memory_format, torch.layout)):
        return {"torch": str(value).removeprefix("torch.")}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return other(value)


def decode(value: Any, device: torch.device, other: Mapping[str, Callable[[Any], Any]]) -> Any:
    """What ``encode`` wrote.

    Args:
        value: JSON values.
        device: of the plan.
        other: decodes "value" and "size".

    Raises:
        UsageError: it is something else.
    """
    if isinstance(value, list):
        return [decode(v, device, other) for v in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise UsageError("an argument is of no known kind")
    ((kind, content),) = value.items()
    if kind in other:
        return other[kind](content)
    known: dict[str, Mapping[str, Any]] = {
        "dtype": DTYPES, "float": _FLOATS, "torch": _TORCH, "device": {DEVICE: device},
    }  # fmt: skip
    if not isinstance(content, str) or content not in known.get(kind, {}):
        raise UsageError(f"the argument {kind} = {str(content)[:80]!r} is not known here")
    return known[kind][content]


def operator_of(name: str, args: Any, kwargs: Any) -> OpOverload[..., Any]:
    """The operator that a plan calls by a name.

    Args:
        name: such as ``aten.add.Tensor``.
        args: of the call, decoded.
        kwargs: likewise.

    Raises:
        UsageError: plans may not call it, or not with these arguments.
    """
    target = listed_operator(name)
    if target is None:
        raise UsageError(f"it calls {name[:80]}, which is not an operator that plans may call")
    require_kinds(target, args, kwargs)
    return target
