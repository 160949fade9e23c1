"""Masks of attention that hide every place of a cache that comes after a token's own.

Every row of ``strop::cache_mask`` shows some place, so that a number which no score outweighs hides
the others as surely as -inf does.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.fx.node import Node

import strop.compiler.ir.dialect  # noqa: F401  (registers the strop:: operators)
from strop.compiler.ir.ancestry import any_float_behind
from strop.compiler.ir.families import CASTS
from strop.compiler.ir.nodes import dtype_of
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
    places, number = _hidden_by(mask)
    return places if number <= _HIDES else None


def cache_mask_in(mask: Node, program: Program) -> Node | None:
    """The same of a mask whose shown places may have biases."""
    given: Any = mask.args
    match mask.target:
        case aten.where.ScalarOther:
            pairs = [given[:2]] if given[2] <= _HIDES else []
        case aten.add.Tensor if not mask.kwargs:
            pairs = [given, given[::-1]]
        case aten.sub.Tensor if not mask.kwargs:
            pairs = [given]
        case _:
            return cache_mask_of(mask)
    for one, bias in pairs:
        found = cache_mask_in(one, program) if isinstance(one, Node) else None
        if found is not None and not _may_be_large(bias, program):
            return found
    return None


def _hidden_by(mask: Node) -> tuple[Node | None, float]:
    """The mask of places behind one of numbers, or None, and the number where it hides."""
    given: Any = mask.args
    match mask.target:
        case torch.ops.strop.cache_mask.default:
            return mask, -math.inf
        case aten.where.Scalar if given[1] == 0:
            return _hidden_by(given[0])[0], given[2]
        case aten.mul.Tensor if isinstance(given[1], float) and given[1] > 0:
            places, number = _hidden_by(given[0])
            return places, number * given[1]
        case target if target in (aten.expand.default, *CASTS):
            if _is_bool(given[0]) == _is_bool(mask):
                return _hidden_by(given[0])
    return None, 0.0


def _is_bool(mask: Node) -> bool:
    return dtype_of(mask) == torch.bool


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
