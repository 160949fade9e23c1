"""Which masks of attention are known to hide every place that comes after a token's own."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx.node import Node

from strop.compiler.ir.constants import evaluate, is_weight_expression
from strop.compiler.ir.nodes import arg
from strop.compiler.ir.program import Program

aten = torch.ops.aten
strop = torch.ops.strop

# Beside a number like this every other score is 0 after softmax.
_HIDES = -1e30
_WHERE = (aten.where.self, aten.where.ScalarOther, aten.where.ScalarSelf, aten.where.Scalar)


def cache_mask_in(mask: Node, program: Program) -> Node | None:
    """The ``strop::cache_mask`` whose hidden places a mask, bool or float, hides; None without."""
    if mask.target is strop.cache_mask.default:
        return mask
    if mask.target in _WHERE and _hides(arg(mask, 2), program):
        return cache_mask_in(arg(mask, 0), program)
    if mask.target is aten.expand.default:
        return cache_mask_in(arg(mask, 0), program)
    if mask.target is aten.add.Tensor:
        parts = [a for a in mask.args if isinstance(a, Node)]
        found = (cache_mask_in(part, program) for part in parts)
        return next((one for one in found if one is not None), None)
    return None


def _hides(value: Any, program: Program) -> bool:
    """Whether a number, or every element of a constant, hides a score that it is added to."""
    if isinstance(value, Node):
        if not is_weight_expression(value):
            return False
        return bool((evaluate(value, program) <= _HIDES).all())
    return bool(value <= _HIDES)
