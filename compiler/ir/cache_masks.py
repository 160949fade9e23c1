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
from strop.compiler.ir.ancestry import may_hold
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
    match mask.target, mask.args:
        case aten.where.ScalarOther, (Node() as condition, bias, float(number)):
            parts = [(_shown_where(condition, True) if number <= _HIDES else None, bias)]
        case aten.where.ScalarSelf, (Node() as condition, float(number), bias):
            parts = [(_shown_where(condition, False) if number <= _HIDES else None, bias)]
        case aten.masked_fill.Scalar, (bias, Node() as condition, float(number)):
            parts = [(_shown_where(condition, False) if number <= _HIDES else None, bias)]
        case aten.add.Tensor, (one, other) if not mask.kwargs:
            parts = [(_numbers_in(a, program), b) for a, b in ((one, other), (other, one))]
        case aten.sub.Tensor, (one, bias) if not mask.kwargs:
            parts = [(_numbers_in(one, program), bias)]
        case _:
            return cache_mask_of(mask)
    return next((m for m, bias in parts if m and not _may_be_large(bias, program)), None)


def _numbers_in(summand: Any, program: Program) -> Node | None:
    """The same of a summand; a bool one counts as 0 and 1, which hides nothing."""
    is_mask = isinstance(summand, Node) and not _is_bool(summand)
    return cache_mask_in(summand, program) if is_mask else None


def _hidden_by(mask: Node) -> tuple[Node | None, float]:
    """The mask of places behind one of numbers, or None, and the number where it hides."""
    match mask.target, mask.args:
        case torch.ops.strop.cache_mask.default, _:
            return mask, -math.inf
        case aten.where.Scalar, (Node() as condition, 0, float(number)):
            return _shown_where(condition, True), number
        case aten.where.Scalar, (Node() as condition, float(number), 0):
            return _shown_where(condition, False), number
        case aten.mul.Tensor, (Node() as source, float(times)) if not _is_bool(source):
            places, number = _hidden_by(source)
            return places, number * times
        case target, (Node() as source, *_) if target in (aten.expand.default, *CASTS):
            return _hidden_by(source) if _is_bool(source) == _is_bool(mask) else (None, 0.0)
    return None, 0.0


def _shown_where(condition: Node, value: bool) -> Node | None:
    """The mask of places that are shown where a condition has a value, and hidden elsewhere."""
    match condition.target, condition.args:
        case torch.ops.strop.cache_mask.default, _:
            return condition if value else None
        case aten.logical_not.default | aten.bitwise_not.default, (Node() as source,):
            return _shown_where(source, not value)
        case target, (Node() as source, *_) if target in (aten.expand.default, *CASTS):
            if _is_bool(source):
                return _shown_where(source, value)
            # As a condition, a number is true where it is not 0, which is where it hides.
            places, number = _hidden_by(source)
            return places if number and not value else None
    return None


def _is_bool(mask: Node) -> bool:
    return dtype_of(mask) == torch.bool


def _may_be_large(bias: Any, program: Program) -> bool:
    """Whether a bias may show what a mask hides: floats are given, or it is made of large ones."""
    if not isinstance(bias, Node):
        return bool(abs(bias) > _LARGEST_BIAS)
    return may_hold(bias, program, lambda numbers: ~(numbers.abs() <= _LARGEST_BIAS))
