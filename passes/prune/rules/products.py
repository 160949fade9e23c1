"""Matrix products: what is contracted is paired, the rest goes through."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from strop.compiler.ir.families import PRODUCTS
from strop.compiler.rewriting.pattern import is_weight
from strop.passes.prune.axes import Axes, Call, Read
from strop.passes.prune.dims import Dim
from strop.passes.prune.roles import HEAD_SIZE, HEADS, LINEAR_IN, LINEAR_OUT, mark
from strop.passes.prune.rules.pointwise import broadcast
from strop.passes.prune.rules.registry import rule

aten = torch.ops.aten


@rule(aten.linear.default)
def linear(call: Call) -> list[Axes]:
    """x [..., in] times weight [out, in], plus bias [out]."""
    x, weight = call.axes("input"), call.axes("weight")
    call.tie(x[-1], weight[-1])
    mark(LINEAR_IN, weight[-1])
    call.found.reads.append(Read(call.given["input"], -1, call.given["weight"], -1))
    if len(weight) == 1:
        return [list(x[:-1])]
    mark(LINEAR_OUT, weight[0])
    if call.given["bias"] is not None:
        broadcast(call, [weight[0]], call.axes("bias"))
    return [[*x[:-1], weight[0]]]


@rule(*PRODUCTS, aten.mv.default, aten.dot.default)
def matmul(call: Call) -> list[Axes]:
    """a [..., m, k] times b [..., k, n]; one axis stands for a vector."""
    names = list(call.given)[:2]
    a, b = (call.axes(name) for name in names)
    made = _product(call, a, b)
    _note_read(call, *names)
    if not any(is_weight(call.given[name]) for name in names) and len(made) > 2:
        mark(HEADS, *made[:-2])
        mark(HEAD_SIZE, a[-1], b[-1])
    return [made]


def _product(call: Call, a: Sequence[Dim], b: Sequence[Dim]) -> Axes:
    call.tie(a[-1], b[-2] if len(b) > 1 else b[0])
    rows = [a[-2]] if len(a) > 1 else []
    columns = [b[-1]] if len(b) > 1 else []
    return [*broadcast(call, a[:-2], b[:-2]), *rows, *columns]


def _note_read(call: Call, left: str, right: str) -> None:
    a, b = call.given[left], call.given[right]
    rank = len(call.axes(right))
    if is_weight(b) and rank > 1:
        mark(LINEAR_IN, call.axes(right)[-2])
        mark(LINEAR_OUT, call.axes(right)[-1])
        call.found.reads.append(Read(a, -1, b, -2))


@rule(aten.addmm.default, aten.baddbmm.default)
def product_and_sum(call: Call) -> list[Axes]:
    """A product, and something added to it."""
    second, third = list(call.given)[1:3]
    made = _product(call, call.axes(second), call.axes(third))
    _note_read(call, second, third)
    return [broadcast(call, made, call.axes("self"))]


@rule(aten.bilinear.default)
def bilinear(call: Call) -> list[Axes]:
    """x [..., i] and y [..., j] with weight [out, i, j]."""
    x, y, weight = call.axes("input1"), call.axes("input2"), call.axes("weight")
    call.tie(x[-1], weight[1])
    call.tie(y[-1], weight[2])
    if call.given["bias"] is not None:
        call.tie(weight[0], call.axes("bias")[0])
    return [[*broadcast(call, x[:-1], y[:-1]), weight[0]]]


@rule(aten.einsum.default)
def einsum(call: Call) -> list[Axes]:
    """Axes of one letter are paired."""
    reads, _, gives = str(call.given["equation"]).replace(" ", "").partition("->")
    letters: dict[str, Dim] = {}
    if "..." in reads or not gives:
        return call.unknown()
    for word, node in zip(reads.split(","), call.given["tensors"]):
        for letter, dim in zip(word, call.axes(node)):
            if letter in letters:
                letters[letter] = broadcast(call, [letters[letter]], [dim])[0]
            else:
                letters[letter] = dim
    return [[letters[letter] for letter in gives]]
