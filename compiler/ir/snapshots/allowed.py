"""Which operators a program from a file may call: ATen's by their list, and the dialect's."""

from __future__ import annotations

from torch._ops import OpOverload

import strop.compiler.ir.dialect  # noqa: F401  (registers the strop:: operators)
from strop.compiler.util.errors import UsageError
from strop.compiler.util.operators import listed_operator, pure_operator


def allowed_operator(name: str) -> OpOverload[..., object]:
    """The operator that ``aten.add.Tensor`` names.

    Raises:
        UsageError: there is none, or a program from a file may not call it.
    """
    target = listed_operator(name)
    if name.startswith("strop."):
        _, _, rest = name.partition(".")
        operation, _, overload = rest.rpartition(".")
        target = pure_operator("strop", operation, overload)
    if target is None:
        raise UsageError(
            f"it calls {name}, which is not an operator that programs from files may call"
        )
    return target
