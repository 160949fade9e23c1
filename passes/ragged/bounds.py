"""Bounds of what an operator gives, from bounds of what it is given.

A mask is 0 where it is not 1, so what is computed from it alone is a number that is found by
computing it. Beyond that only what hides or selects is known: products with 0, choices, and sums.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch.fx.node import Node

from strop.compiler.ir.constants import evaluate, is_weight_expression
from strop.compiler.ir.families import COPIES, EXPANSIONS, VIEWS, ZEROS
from strop.compiler.ir.nodes import arguments, dtype_of
from strop.compiler.ir.program import Program
from strop.passes.ragged.states import Bounds

aten = torch.ops.aten
Find = Callable[[Any], Bounds]
"""The bounds of an argument: of a value of the graph, or of a number."""

# Each element of the result is one of the first argument.
_CHOOSING = (
    *COPIES,
    *EXPANSIONS,
    *VIEWS,
    aten.embedding.default,
    aten.index.Tensor,
    aten.index_select.default,
    aten.permute.default,
    aten.select.int,
    aten.slice.Tensor,
    aten.transpose.int,
    aten.unsqueeze.default,
)


def exact(number: Any) -> Bounds:
    """The bounds of one number."""
    return float(number), float(number)


def _is(bounds: Bounds, number: float) -> bool:
    return bounds == (number, number)


def result_bounds(node: Node, find: Find) -> Bounds:
    """Bounds of an operator's result, at a place where those of its arguments are known.

    Args:
        node: calls an operator that works element by element.
        find: the bounds of each argument.
    """
    rule = _RULES.get(node.target)
    found = rule(arguments(node), find) if rule else None
    return found or _computed(node, find)


def _computed(node: Node, find: Find) -> Bounds:
    """The one number that the operator gives, where every argument is one number."""
    numbers = {n: find(n) for n in node.all_input_nodes}
    if any(b is None or b[0] != b[1] for b in numbers.values()):
        return None

    def number(of: Node) -> Any:
        bounds = numbers[of]
        assert bounds is not None
        return torch.tensor(bounds[0], dtype=torch.float64).to(dtype_of(of))

    args, kwargs = fx.map_arg((node.args, node.kwargs), number)
    result = node.target(*args, **kwargs)  # type: ignore[operator]
    return exact(result)


def _product(given: dict[str, Any], find: Find) -> Bounds:
    zero = _is(find(given["self"]), 0.0) or _is(find(given["other"]), 0.0)
    return exact(0) if zero else None


def _conjunction(given: dict[str, Any], find: Find) -> Bounds:
    """Of truth values; bits of integers have their bounds computed."""
    values = [given["self"], given["other"]]
    if any(dtype_of(v) != torch.bool for v in values):
        return None
    return exact(0) if any(_is(find(v), 0.0) for v in values) else None


def _disjunction(given: dict[str, Any], find: Find) -> Bounds:
    values = [given["self"], given["other"]]
    if any(dtype_of(v) != torch.bool for v in values):
        return None
    return exact(1) if any(_is(find(v), 1.0) for v in values) else None


def _choice(given: dict[str, Any], find: Find) -> Bounds:
    condition = find(given["condition"])
    if _is(condition, 1.0):
        return find(given["self"])
    return find(given["other"]) if _is(condition, 0.0) else _either(given, find)


def _either(given: dict[str, Any], find: Find) -> Bounds:
    a, b = find(given["self"]), find(given["other"])
    return None if a is None or b is None else (min(a[0], b[0]), max(a[1], b[1]))


def _filled(given: dict[str, Any], find: Find) -> Bounds:
    mask = find(given["mask"])
    if _is(mask, 1.0):
        return find(given["value"])
    return find(given["self"]) if _is(mask, 0.0) else None


def _sum(given: dict[str, Any], find: Find) -> Bounds:
    a, b = find(given["self"]), find(given["other"])
    if a is None or b is None or given["alpha"] != 1:
        return None
    return a[0] + b[0], a[1] + b[1]


_RULES: dict[Any, Callable[[dict[str, Any], Find], Bounds]] = {
    aten.mul.Tensor: _product,
    aten.mul.Scalar: _product,
    aten.logical_and.default: _conjunction,
    aten.bitwise_and.Tensor: _conjunction,
    aten.__and__.Tensor: _conjunction,
    aten.logical_or.default: _disjunction,
    aten.bitwise_or.Tensor: _disjunction,
    aten.__or__.Tensor: _disjunction,
    aten.where.self: _choice,
    aten.where.Scalar: _choice,
    aten.where.ScalarOther: _choice,
    aten.where.ScalarSelf: _choice,
    aten.masked_fill.Scalar: _filled,
    aten.masked_fill.Tensor: _filled,
    aten.add.Tensor: _sum,
}


def weight_bounds(value: Node, program: Program) -> Bounds:
    """Bounds of a value whose elements are those of a weight, chosen and moved, or zeros of it.

    A product with 0 may be NaN: then so is the whole row of scores that it is added to, which the
    original has as well.
    """
    if is_weight_expression(value):
        weight = evaluate(value, program).detach()
        if weight.numel() == 0 or not weight.is_floating_point() or not weight.isfinite().all():
            return None
        return float(weight.min()), float(weight.max())
    if value.target in (aten.mul.Tensor, aten.mul.Scalar) and value.args[1] == 0:
        return exact(0)
    if value.target in ZEROS:
        return exact(0)
    if value.target in _CHOOSING and isinstance(value.args[0], Node):
        return weight_bounds(value.args[0], program)
    return None
