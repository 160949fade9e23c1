"""What is asked of operators before a plan may hold them."""

from __future__ import annotations

from typing import Any

import torch
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from strop.compiler.ir.printer import op_name
from strop.compiler.lower.triton.memory import storage_address
from strop.compiler.lower.triton.reference import tensors_in
from strop.compiler.lower.triton.refusal import NotLowered

aten = torch.ops.aten


def is_random(target: OpOverload[Any, Any], args: Any, kwargs: Any) -> bool:
    """Whether a call draws random numbers; what may drop values out often does not."""
    if torch.Tag.nondeterministic_seeded not in target.tags:
        return False
    given = {
        argument.name: args[i]
        if i < len(args)
        else kwargs.get(argument.name, argument.default_value)
        for i, argument in enumerate(target._schema.arguments)
    }
    shares = [given[name] for name in ("dropout", "dropout_p", "p") if name in given]
    return not shares or (given.get("train", True) and shares[0] != 0)


def views_only() -> TorchDispatchMode:
    """Within, what computes tensors by torch is refused.

    Raises:
        NotLowered: something does.
    """
    return _ViewsOnly()  # type: ignore[no-untyped-call]


class _ViewsOnly(TorchDispatchMode):
    """Refuses what launchers have torch compute: a plan would not run it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        known = {storage_address(t) for t in tensors_in((args, kwargs))}
        made = {storage_address(t) for t in tensors_in(result)}
        if func not in _ALLOCATES and not made <= known:
            raise NotLowered(f"its launcher computes {op_name(func)} by torch")
        return result


_ALLOCATES = (aten.new_empty.default, aten.empty.memory_format, aten.empty_strided.default)
