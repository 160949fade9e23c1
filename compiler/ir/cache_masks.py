"""Masks of attention that hide every place of a cache that comes after a token's own.

Every row of ``strop::cache_mask`` shows some place, so that a number which no score outweighs hides
the others as surely as -inf does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx.node import Node

import strop.compiler.ir.dialect  # noqa: F401  (registers the strop:: operators)
from strop.compiler.ir.ancestry import any_float_behind
from strop.compiler.ir.families import CASTS
from strop.compiler.ir.nodes import arg, dtype_of
from strop.compiler.ir.program import Program

aten = torch.ops.aten
# Added to any score it is this number.
_HIDES = -1e30
# Biases up to this do not outweigh it.
_LARGEST_BIAS = 1e20


def cache_mask_of(mask: Node) -> Node | None:
    """The ``strop::cache_mask`` whose places a mask shows, and hides all others; else None.

    The mask may be this one, or numbers: 0 where a place is shown, a very low one elsewhere.
    """
    if mask.target is torch.ops.strop.cache_mask.default:
        return mask
    if mask.target in (aten.expand.default, *CASTS):
        source = arg(mask, 0)
        return cache_mask_of(source) if _is_bool(source) == _is_bool(mask) else None
    if mask.target is aten.where.Scalar and mask.args[1] == 0 and _hides(mask.args[2]):
        return cache_mask_of(arg(mask, 0))
    return None


def _hides(number: object) -> bool:
    return isinstance(number, float) and number <= _HIDES


def _is_bool(mask: Node) -> bool:
    return dtype_of(mask) == torch.bool


def cache_mask_in(mask: Node, program: Program) -> Node | None:
    """The same of a mask whose shown places may have biases."""
    if mask.target is aten.where.ScalarOther and _hides(mask.args[2]):
        places, bias = arg(mask, 0), arg(mask, 1)
        return None if _may_be_large(bias, program) else cache_mask_of(places)
    if mask.target not in (aten.add.Tensor, aten.sub.Tensor):
        return cache_mask_of(mask)
    pairs = [mask.args[:2]]
    if mask.target is aten.add.Tensor:
        pairs.append(mask.args[1::-1])
    if mask.kwargs.get("alpha", 1) != 1:
        return None
    for one, other in pairs:
        found = cache_mask_in(one, program) if isinstance(one, Node) else None
        if found is not None and not _may_be_large(other, program):
            return found
    return None


def _may_be_large(bias: Any, program: Program) -> bool:
    """Whether a bias may show what a mask hides: floats are given, or it is made of large ones."""
    if not isinstance(bias, Node):
        return bool(abs(bias) > _LARGEST_BIAS)

    def may(node: Node) -> bool:
        if node.op == "placeholder":
            return True
        weight = program.weight_of(node)
        if weight is not None:
            return not bool((weight.detach().abs() <= _LARGEST_BIAS).all())
        numbers = [a for a in (*node.args, *node.kwargs.values()) if isinstance(a, float)]
        return any(abs(number) > _LARGEST_BIAS for number in numbers)

    return any_float_behind(bias, may)
