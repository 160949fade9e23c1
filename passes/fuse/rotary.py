"""Rotary embedding written out becomes ``strop::rotary``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx.node import Node

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.nodes import (
    arg,
    arguments,
    input_node,
    same_shape,
    same_size,
    shape_of,
    static_int,
)
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.passes import RulePass
from strop.compiler.rewriting.pattern import Match, Op, Var, is_float
from strop.compiler.rewriting.rules import Rule
from strop.passes.fuse.layout import pack_heads, unpack_heads

aten = torch.ops.aten
strop = torch.ops.strop

_X = Var("x", is_float, "a float tensor")
_ROTATED = Op(aten.cat.default, Var("halves"), -1)


class HalfRotary(Rule):
    """``x * cos + cat(-x[half:], x[:half]) * sin`` with tables doubled by ``cat(f, f)``."""

    name = "rotary"
    pattern = Op(
        aten.add.Tensor,
        Op(aten.mul.Tensor, _X, Var("cos", is_float, "a table"), swap=True),
        Op(aten.mul.Tensor, _ROTATED, Var("sin", is_float, "a table"), swap=True),
        swap=True,
    )

    def check(self, match: Match, program: Program) -> str | None:
        x = match["x"]
        if len(shape_of(x)) != 4:
            return "x is not [batch, heads, seq, size]"
        if isinstance(shape_of(x)[1], torch.SymInt) or isinstance(shape_of(x)[3], torch.SymInt):
            return "heads or size are dynamic"
        if not _is_rotated_half(match["halves"], x):
            return "the second product is not of the halves exchanged"
        for name in ("cos", "sin"):
            if half_table(match[name], x) is None:
                return f"the {name} table is not two equal halves over [batch, 1, seq, size]"
        return None

    def rewrite(self, match: Match, build: Builder) -> Node:
        x = match["x"]
        cos, sin = (self._half(match[name], x, build) for name in ("cos", "sin"))
        return rotate(x, cos, sin, int(shape_of(x)[1]), build)

    def _half(self, table: Node, x: Node, build: Builder) -> Node:
        """cos or sin as [batch or 1, seq, half], made where the whole table was."""
        whole = half_table(table, x)
        assert whole is not None
        # Right after the table itself, so that every later rotation can share it.
        near = Builder(build.program, whole.next, build.made_by)
        rows = whole if len(shape_of(whole)) == 3 else _shared(near, aten.squeeze.dim, whole, 1)
        near = Builder(build.program, rows.next, build.made_by)
        return _shared(near, aten.slice.Tensor, rows, -1, 0, int(shape_of(x)[-1]) // 2)


def _shared(near: Builder, target: Any, x: Node, *rest: int) -> Node:
    """A call on a table, which is made once."""
    made = (u for u in x.users if u.meta.get("made_by") == near.made_by and u.target is target)
    return next(made, None) or near.call(target, x, *rest)


def rotate(x: Node, cos: Node, sin: Node, heads: int, build: Builder) -> Node:
    """One rotary node, on packed heads where x comes from packed heads."""
    packed = pack_heads(x, build)
    if packed is None:
        return build.call(strop.rotary.default, x, cos, sin, heads)
    turned = build.call(strop.rotary.default, packed, cos, sin, heads)
    return unpack_heads(turned, heads, build)


def _is_rotated_half(halves: Any, x: Node) -> bool:
    """``[-x[..., half:], x[..., :half]]``."""
    if len(halves) != 2 or halves[0].target is not aten.neg.default:
        return False
    half = int(shape_of(x)[-1]) // 2
    return _is_part(halves[0].args[0], x, half, 2 * half) and _is_part(halves[1], x, 0, half)


def _is_part(part: Node, x: Node, start: int, end: int) -> bool:
    if part.target is not aten.slice.Tensor:
        return False
    a = arguments(part)
    last = len(shape_of(x)) - 1
    first = static_int(a["start"] or 0)
    stop = math.inf if a["end"] is None else static_int(a["end"])
    return (
        a["self"] is x
        and a["dim"] in (-1, last)
        and a["step"] == 1
        and first == start
        and stop is not None
        and min(stop, int(shape_of(x)[-1])) == end
    )


def half_table(table: Node, x: Node) -> Node | None:
    """The table whose halves are equal: [batch or 1, 1, seq, size], or that under unsqueeze(1)."""
    under = table.target is aten.unsqueeze.default and table.args[1] in (1, -3)
    whole = input_node(table) if under else table
    shape, (batch, _, length, size) = shape_of(whole), shape_of(x)
    if not same_shape(shape[1:], (length, size) if under else (1, length, size)):
        return None
    if not same_size(shape[0], batch) and not same_size(shape[0], 1):
        return None
    return whole if _halves_equal(whole) else None


def _halves_equal(node: Node) -> bool:
    """Whether a value is, through elementwise functions, ``cat((f, f), -1)``."""
    while node.target is not aten.cat.default:
        scaled = node.target is aten.mul.Tensor and not isinstance(node.args[1], Node)
        if node.target not in (aten.cos.default, aten.sin.default) and not scaled:
            return False
        node = arg(node, 0)
    parts, axis = node.args[0], arguments(node)["dim"]
    rank = len(shape_of(node))
    return len(parts) == 2 and parts[0] is parts[1] and axis in (-1, rank - 1)  # type: ignore[arg-type,index]


class PartialRotary(Rule):
    """``cat(rotary(x[..., :r]), x[..., r:])``: the other channels pass through."""

    name = "rotary-partial"
    pattern = Op(
        aten.cat.default,
        Var("parts", lambda v: len(v) == 2, "two parts"),
        Var("dim"),
    )

    def check(self, match: Match, program: Program) -> str | None:
        turned, rest = match["parts"]
        if turned.target is not strop.rotary.default or len(shape_of(turned)) != 4:
            return "the first part is not rotated"
        part, cut = input_node(turned), int(shape_of(turned)[-1])
        if part.target is not aten.slice.Tensor:
            return "the first part is not cut from a value"
        x = input_node(part)
        if not _is_part(part, x, 0, cut) or not _is_part(rest, x, cut, int(shape_of(x)[-1])):
            return "the parts are not the two ends of one value"
        return None if match["dim"] in (-1, 3) else "joined along another axis"

    def rewrite(self, match: Match, build: Builder) -> Node:
        part, cos, sin, heads = match["parts"][0].args
        return rotate(part.args[0], cos, sin, heads, build)


@dataclass(frozen=True)
class FuseRotary(RulePass):
    """Recognise rotary position embedding written out."""

    name = "rotary"
    # It moves q and k into the packed layout that the attention operator takes.
    before = ("attention",)

    def rules(self) -> Sequence[Rule]:
        return (HalfRotary(), PartialRotary())
