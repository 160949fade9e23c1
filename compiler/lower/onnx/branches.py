"""One of two ways to compute the same, chosen when the file runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from strop.compiler.lower.onnx.emitter import DTYPE, Emitter


def either(
    on: Emitter,
    condition: Any,
    then: Callable[[], Sequence[Any]],
    otherwise: Callable[[], Sequence[Any]],
) -> Any:
    """The results of one of two branches, which have the same dtypes."""
    branches = on.branch(then), on.branch(otherwise)
    types = [value.meta[DTYPE] for value in branches[0].outputs]
    made = on.op(
        "If", condition, outputs=len(types), then_branch=branches[0], else_branch=branches[1]
    )
    for value, dtype in zip(made if isinstance(made, tuple) else (made,), types):
        value.meta[DTYPE] = dtype
    return made
