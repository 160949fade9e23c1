"""Analyses written-out attention scores: a product, and the operators between it and softmax.

From the softmax inwards, every operator multiplies the scores, bounds them by a tanh, adds a bias
or a mask to them, fills those that are hidden with a number, or gives them other batch axes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.fx.node import Node

from strop.compiler.ir.families import DIV, MUL, PRODUCTS, VIEWS, ZEROS
from strop.compiler.ir.nodes import (
    arg,
    arguments,
    dtype_of,
    input_node,
    same_shape,
    same_size,
    shape_of,
)
from strop.compiler.ir.printer import op_name
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.pattern import NEAR, Miss, is_number

aten = torch.ops.aten

Sizes = tuple[int | torch.SymInt, ...]
SUMS_OF_PRODUCTS = (aten.baddbmm.default, aten.addmm.default)
BATCH_VIEWS = (
    *VIEWS,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
)
_FULL = {aten.full.default: 1, aten.full_like.default: 1, aten.scalar_tensor.default: 0}


@dataclass(frozen=True)
class Scaled:
    """Multiplied by a number."""

    factor: float


@dataclass(frozen=True)
class ScaledRows:
    """Multiplied or divided by a tensor [..., rows or 1, 1]: the same for all keys of a query.

    Attributes:
        operator: ``aten.mul.Tensor`` or ``aten.div.Tensor``, with ``by`` as its second argument.
        lead: the batch axes of the scores when it was done.
    """

    operator: Any
    by: Node
    lead: Sizes


@dataclass(frozen=True)
class Added:
    """A bias or a mask was added, ``times`` a number; ``lead`` as above."""

    value: Node
    times: float
    lead: Sizes


@dataclass(frozen=True)
class Filled:
    """Scores were replaced by ``number`` where a mask is true, or false; ``lead`` as above."""

    mask: Node
    where_true: bool
    number: float
    lead: Sizes


@dataclass(frozen=True)
class Bounded:
    """Scores became their tanh, between -1 and 1."""


ScoreStep = Scaled | ScaledRows | Added | Filled | Bounded


@dataclass(frozen=True)
class Scores:
    """Scores, taken apart.

    Attributes:
        q: first factor of the product, [*lead, rows, size].
        kt: second factor, [*lead, size, columns].
        steps: what was done to the product, first things first.
        inside: every operator of it, the product first.
        leads: the batch axes that the scores have had, those of the product first.
    """

    q: Node
    kt: Node
    steps: tuple[ScoreStep, ...]
    inside: tuple[Node, ...]
    leads: tuple[Sizes, ...]

    def then(self, node: Node, step: ScoreStep | None) -> Scores:
        """The scores after one more operator."""
        return replace(
            self,
            steps=(*self.steps, *([] if step is None else [step])),
            inside=(*self.inside, node),
            leads=(*self.leads, lead_of(node)),
        )


def lead_of(x: Node) -> Sizes:
    """The batch axes of a value: all but the last two."""
    return shape_of(x)[:-2]


def take_apart(node: Any, program: Program, depth: int = NEAR) -> Scores | Miss:
    """Follow the scores from ``node`` inwards to the product of queries and keys.

    Args:
        node: scores, before softmax.
        program: whose constants are looked up.
        depth: how deep a match has come, for the miss.
    """
    if not isinstance(node, Node) or node.op != "call_function":
        return Miss("the scores are not a product of queries and keys", node, depth)
    if len(node.users) > 1:
        return Miss("the attention scores are used elsewhere too", node, depth)
    if node.target in PRODUCTS:
        return Scores(arg(node, 0), arg(node, 1), (), (node,), (lead_of(node),))
    if node.target in SUMS_OF_PRODUCTS:
        return _sum_of_product(node)
    best = Miss(f"between softmax and the scores stands {op_name(node.target)}", node, depth)
    for inner, step in _readings(node, program):
        found = take_apart(inner, program, depth + 1)
        if isinstance(found, Scores):
            return _why_not_step(node, inner, step, depth) or found.then(node, step)
        best = max(best, found, key=lambda miss: miss.depth)
    return best


def _why_not_step(node: Node, inner: Node, step: ScoreStep | None, depth: int) -> Miss | None:
    """Why an operator on the scores is not what it seems to be."""
    if not _same_matrix(inner, node):
        return Miss("the scores are repeated, or their rows and columns change", node, depth)
    if step is not None and not same_shape(shape_of(inner), shape_of(node)):
        return Miss("the scores are repeated over a mask, bias or factor", node, depth)
    if isinstance(step, Added) and dtype_of(step.value) != dtype_of(inner):
        return Miss(f"the summand is {dtype_of(step.value)}", step.value, depth)
    if dtype_of(node) != dtype_of(inner):
        return Miss(f"the scores become {dtype_of(node)}", node, depth)
    return None


def _same_matrix(a: Node, b: Node) -> bool:
    """Whether two values have the same last two axes."""
    return same_shape(shape_of(a)[-2:], shape_of(b)[-2:])


def without_batch_views(node: Node) -> tuple[Node, list[Node]]:
    """The value before changes of batch axes alone, and those changes."""
    passed = []
    while node.target in BATCH_VIEWS and _same_matrix(node, arg(node, 0)):
        passed.append(node)
        node = arg(node, 0)
    return node, passed


def _sum_of_product(node: Node) -> Scores:
    """``beta * input + alpha * (a b)``."""
    values = arguments(node)
    first, a, b = list(values.values())[:3]
    lead = lead_of(node)
    steps: list[ScoreStep] = [Scaled(float(values["alpha"]))]
    if values["beta"] != 0 and first.target not in ZEROS:
        steps.append(Added(first, float(values["beta"]), lead))
    return Scores(a, b, tuple(steps), (node,), (lead,))


def constant_number(value: Any, program: Program) -> float | None:
    """The number that an argument is, or that a constant holds; None for anything else.

    A parameter is none: it may still be trained.
    """
    if is_number(value):
        return float(value)
    weight = program.weight_of(value)
    if weight is not None:
        fixed = weight.numel() == 1 and not isinstance(weight, torch.nn.Parameter)
        return float(weight) if fixed else None
    if isinstance(value, Node) and value.target in _FULL:
        return constant_number(value.args[_FULL[value.target]], program)
    return None


def number_factor(node: Any, program: Program) -> tuple[Any, float] | None:
    """``x, f`` where a value is ``x * f`` with a number f."""
    if not isinstance(node, Node) or node.target not in (*MUL, *DIV):
        return None
    a, b = arg(node, 0), arg(node, 1)
    number = constant_number(b, program)
    if number is not None and isinstance(a, Node):
        if node.target in DIV:
            return (a, 1 / number) if number else None
        return a, number
    number = constant_number(a, program)
    return (b, number) if number is not None and node.target in MUL else None


Reading = tuple[Any, ScoreStep | None]
"""The scores before an operator, and what it did to them; None for other batch axes alone."""


def _readings(node: Node, program: Program) -> Iterator[Reading]:
    """All ways to read an operator on scores: either summand may be the scores."""
    found = number_factor(node, program)
    if found is not None:
        yield found[0], Scaled(found[1])
    elif node.target in _READERS:
        yield from _READERS[node.target](node, program)


def _view(node: Node, program: Program) -> Iterator[Reading]:
    yield arg(node, 0), None


def _rows_factor(node: Node, program: Program) -> Iterator[Reading]:
    pairs = [(arg(node, 0), arg(node, 1))]
    if node.target is aten.mul.Tensor:
        pairs.append(pairs[0][::-1])
    for scores, by in pairs:
        if isinstance(by, Node) and (not shape_of(by) or same_size(shape_of(by)[-1], 1)):
            yield scores, ScaledRows(node.target, by, lead_of(node))


def _sum(node: Node, program: Program) -> Iterator[Reading]:
    a, b = arg(node, 0), arg(node, 1)
    times = float(arguments(node)["alpha"])
    if not isinstance(a, Node) or not isinstance(b, Node):
        return
    if node.target is aten.sub.Tensor:
        yield a, Added(b, -times, lead_of(node))
        return
    yield a, Added(b, times, lead_of(node))
    if times == 1:
        yield b, Added(a, 1.0, lead_of(node))


def _tanh(node: Node, program: Program) -> Iterator[Reading]:
    yield arg(node, 0), Bounded()


def _masked_fill(node: Node, program: Program) -> Iterator[Reading]:
    number = constant_number(arg(node, 2), program)
    if number is not None:
        yield arg(node, 0), Filled(arg(node, 1), True, number, lead_of(node))


def _where(node: Node, program: Program) -> Iterator[Reading]:
    mask, true, false = input_node(node), *node.args[1:]
    for scores, other, where_true in ((true, false, False), (false, true, True)):
        number = constant_number(other, program)
        if number is not None:
            yield scores, Filled(mask, where_true, number, lead_of(node))


_READERS: dict[Any, Callable[[Node, Program], Iterator[Reading]]] = {
    **dict.fromkeys(BATCH_VIEWS, _view),
    aten.mul.Tensor: _rows_factor,
    aten.div.Tensor: _rows_factor,
    aten.add.Tensor: _sum,
    aten.sub.Tensor: _sum,
    aten.tanh.default: _tanh,
    aten.masked_fill.Scalar: _masked_fill,
    aten.masked_fill.Tensor: _masked_fill,
    aten.where.self: _where,
    aten.where.ScalarOther: _where,
    aten.where.ScalarSelf: _where,
}
