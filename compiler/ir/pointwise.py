"""Operators that compute each element from those at its place, with broadcasting."""

from __future__ import annotations

from typing import Any

import torch
from torch._ops import OpOverload

from strop.compiler.ir.families import CASTS, COPIES, DROPOUTS

aten = torch.ops.aten

# Torch tags most of them itself; these too compute each element from those at its place.
_UNTAGGED = frozenset(
    (
        *COPIES,
        *CASTS,
        *DROPOUTS,
        aten.masked_fill.Scalar,
        aten.masked_fill.Tensor,
        aten.nan_to_num.default,
        aten.clamp.default,
        aten.clamp.Tensor,
        aten.hardsigmoid.default,
        aten.hardswish.default,
        aten.hardtanh.default,
        aten.relu6.default,
        aten.selu.default,
        aten.celu.default,
        aten.mish.default,
        aten.softplus.default,
        aten.log_sigmoid.default,
        aten.zeros_like.default,
        aten.ones_like.default,
        aten.full_like.default,
        aten.where.Scalar,
        aten.where.ScalarOther,
        aten.where.ScalarSelf,
        aten.square.default,
        aten.__and__.Tensor,
        aten.__or__.Tensor,
        aten.__xor__.Tensor,
    )
)


def is_pointwise(target: Any) -> bool:
    """Whether an operator works element by element, and not at random."""
    if target in _UNTAGGED:
        return True
    return (
        isinstance(target, OpOverload)
        and torch.Tag.pointwise in target.tags
        and torch.Tag.nondeterministic_seeded not in target.tags
    )
