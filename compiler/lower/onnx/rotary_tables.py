"""Rotary embedding whose angles depend on nothing but positions: a table has them all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.fx.node import Node

from strop.compiler.ir.constants import is_weight_expression
from strop.compiler.ir.families import CASTS
from strop.compiler.ir.nodes import arg, arguments, expression, input_node, shape_of
from strop.compiler.ir.program import Program

aten = torch.ops.aten
strop = torch.ops.strop

# What gives for each position of [batch, seq] numbers that depend on no other position.
_BY_POSITION = (
    *CASTS,
    aten.unsqueeze.default,
    aten.mul.Tensor,
    aten.div.Tensor,
    aten.cat.default,
    aten.cos.default,
    aten.sin.default,
    aten.slice.Tensor,
    aten.squeeze.dim,
)


@dataclass(frozen=True)
class Rotated:
    """Queries and keys that are turned by the same angles.

    Attributes:
        q: queries before they are turned, packed heads.
        k: keys, likewise.
        cos: [batch or 1, seq, half], computed from ``positions`` alone.
        sin: likewise.
        positions: [batch, seq] int64, of ``strop::cache_positions``.
        limit: every position is below this number.
    """

    q: Node
    k: Node
    cos: Node
    sin: Node
    positions: Node
    limit: int


def rotated(q: Node, k: Node, program: Program) -> Rotated | None:
    """What queries and keys were before they were turned, where a table can turn them."""
    if q.target is not strop.rotary.default or k.target is not strop.rotary.default:
        return None
    cos, sin = arg(q, 1), arg(q, 2)
    if len(shape_of(q)) != 3 or (cos, sin) != (arg(k, 1), arg(k, 2)):
        return None
    positions = {_positions_of(table) for table in (cos, sin)}
    found = positions.pop()
    if positions or found is None:
        return None
    limit = _most(shape_of(arg(found, 0))[1], program)
    if limit is None:
        return None
    return Rotated(input_node(q), input_node(k), cos, sin, found, limit)


def _positions_of(table: Node) -> Node | None:
    """The positions of which alone a table, [batch, seq, half], is made, each for itself."""
    steps: list[Node] = []
    while table.target is not strop.cache_positions.default:
        sources = dict.fromkeys(n for n in table.all_input_nodes if not is_weight_expression(n))
        if len(sources) != 1 or table.target not in _BY_POSITION:
            return None
        steps.append(table)
        table = next(iter(sources))
    axis: int | None = 1
    for step in reversed(steps):
        axis = None if axis is None else _axis_behind(step, axis)
    return table if axis == 1 else None


def _axis_behind(step: Node, axis: int) -> int | None:
    """The axis of a call's result along which positions lie; None where they may be mixed."""
    last = len(shape_of(step)) - 1
    along: int = arguments(step).get("dim", 0)
    if step.target is aten.unsqueeze.default:
        return axis + int(along % (last + 1) <= axis)
    if step.target is aten.squeeze.dim:
        return axis - int(along % (last + 2) < axis)
    if step.target in (aten.cat.default, aten.slice.Tensor) and along % (last + 1) == axis:
        return None
    constants = [n for n in step.all_input_nodes if is_weight_expression(n)]
    beside = [shape_of(n)[axis - last - 1] for n in constants if len(shape_of(n)) > last - axis]
    return axis if all(size == 1 for size in beside) else None


def _most(size: Any, program: Program) -> int | None:
    """The largest size that the contract allows; None if it allows any."""
    if isinstance(size, int):
        return size
    total = expression(size)
    most = {dim.name: dim.max for dim in program.contract.dims}
    parts = total.args if total.is_Add else (total,)
    known = [int(p) if p.is_Integer else most.get(program.symbols.get(str(p), "")) for p in parts]
    return None if None in known else sum(n for n in known if n is not None)
