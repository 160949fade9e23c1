"""What was done to attention scores, as one scale and one mask that is added."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.fx.node import Node

from strop.compiler.ir.ancestry import may_hold
from strop.compiler.ir.builder import Builder
from strop.compiler.ir.constants import evaluate, is_weight_expression
from strop.compiler.ir.nodes import shape_of
from strop.compiler.ir.program import Program
from strop.passes.fuse.batch_axes import BatchAxes
from strop.passes.fuse.scores import Added, Filled, Scaled, ScaledRows, ScoreStep

aten = torch.ops.aten

# Added to any score it is this number, so a row that hides everything is a plain mean.
_FAR = -1e30
# Numbers up to this hide a score; larger ones are biases.
_HIDES = -1e4
# A multiple of a number beyond this, or its sum with a large one, may be infinite in float32.
_OVERFLOWS = 1e38
# A few numbers below this make no sum infinite: the last step of float32 is 2e31.
_LARGE = 1e29


@dataclass(frozen=True)
class Later:
    """A step, and what multiplies its result after it: a number, and factors of whole rows."""

    step: ScoreStep
    number: float
    rows: tuple[ScaledRows, ...]

    @property
    def fill(self) -> float | None:
        """The number at which softmax sees filled scores; None if the step fills none."""
        return self.step.number * self.number if isinstance(self.step, Filled) else None

    @property
    def grows(self) -> bool:
        """Whether what the step adds may be multiplied by more than 1."""
        times = self.step.times if isinstance(self.step, Added) else 1.0
        return bool(self.rows) or abs(times * self.number) > 1


def with_later_factors(steps: Sequence[ScoreStep]) -> list[Later]:
    """Each step with the product of the factors after it, in the order of the steps."""
    number, found = 1.0, list[Later]()
    rows: tuple[ScaledRows, ...] = ()
    for step in reversed(steps):
        found.append(Later(step, number, rows))
        if isinstance(step, Scaled):
            number *= step.factor
        elif isinstance(step, ScaledRows):
            rows = (step, *rows)
    return found[::-1]


def why_not_one_mask(steps: Sequence[ScoreStep], program: Program) -> str | None:
    """Why a mask that is added would differ in some row, rows that hide everything included."""
    later = with_later_factors(steps)
    filled = {i: one.fill for i, one in enumerate(later) if one.fill is not None}
    if any(later[i].rows for i in filled):
        return "hidden scores are scaled by a tensor"
    weak = [number for number in filled.values() if not number <= _HIDES]
    if weak:
        return f"scores are filled with {weak[0]:g}, which may not hide them"
    finite = {number for number in filled.values() if math.isfinite(number)}
    if len(finite) > 1:
        return f"scores are hidden behind different numbers, {sorted(finite)}"
    near = [i for i, number in filled.items() if number > _FAR]
    if near and any(isinstance(one.step, Added) for one in later[near[0] :]):
        return (
            f"a summand comes after scores were filled with {filled[near[0]]:g}: "
            "it counts where a row hides everything"
        )
    added = [one.step.value for one in later if isinstance(one.step, Added)]
    if near and any(may_hold(value, program, _hides) for value in added):
        return "scores are hidden by a fill and by a sum, which differ where a row hides everything"
    return None


def scale_of(steps: Sequence[ScoreStep]) -> float:
    """The product of all numbers by which scores are multiplied."""
    return math.prod(step.factor for step in steps if isinstance(step, Scaled))


def scaled_queries(q: Node, steps: Sequence[ScoreStep], axes: BatchAxes, build: Builder) -> Node:
    """Queries, [batch, heads, rows, size], with the factors of whole rows of the scores."""
    whole = q
    for step in steps:
        if isinstance(step, ScaledRows):
            whole = build.call(step.operator, whole, axes.of_mask(step.by, step.lead, q, build))
    return whole


def build_mask(steps: Sequence[ScoreStep], q: Node, axes: BatchAxes, build: Builder) -> Node | None:
    """All that is added to scores, or hides them, as one float mask to add; None if nothing is."""
    total: Node | None = None
    later = with_later_factors(steps)
    for one in later:
        if isinstance(one.step, Added):
            bias = _scaled_bias(one.step, one, q, axes, build)
            total = bias if total is None else build.call(aten.add.Tensor, total, bias)
        elif isinstance(one.step, Filled):
            total = _filled(total, one.step, one.step.number * one.number, q, axes, build)
    if total is None:
        return None
    for _ in range(2 - len(shape_of(total))):  # torch takes no mask of fewer axes
        total = build.call(aten.unsqueeze.default, total, 0)
    if not _may_hide_a_row(total, later, build.program):
        return total
    return _not_a_number_where_all_is_hidden(total, build)


def _scaled_bias(step: Added, later: Later, q: Node, axes: BatchAxes, build: Builder) -> Node:
    bias, times = axes.of_mask(step.value, step.lead, q, build), step.times * later.number
    if times != 1:
        bias = build.call(aten.mul.Tensor, bias, times)
    for rows in later.rows:
        bias = build.call(rows.operator, bias, axes.of_mask(rows.by, rows.lead, q, build))
    return bias


def _filled(
    total: Node | None, step: Filled, fill: float, q: Node, axes: BatchAxes, build: Builder
) -> Node:
    number = min(fill, _FAR)
    mask = axes.of_mask(step.mask, step.lead, q, build)
    if total is None:
        both = (number, 0.0) if step.where_true else (0.0, number)
        return build.call(aten.where.Scalar, mask, *both)
    if step.where_true:
        return build.call(aten.where.ScalarSelf, mask, number, total)
    return build.call(aten.where.ScalarOther, mask, total, number)


def _not_a_number_where_all_is_hidden(mask: Node, build: Builder) -> Node:
    """A mask with NaN in rows that are -inf throughout, where softmax gives NaN.

    The attention operator gives zeros there. Any other number times 0 adds nothing.
    """
    highest = build.call(aten.amax.default, mask, [-1], True)
    return build.call(aten.add.Tensor, mask, build.call(aten.mul.Tensor, highest, 0.0))


def _may_hide_a_row(mask: Node, later: Sequence[Later], program: Program) -> bool:
    """Whether a row of the joined mask may be -inf throughout."""
    if is_weight_expression(mask):
        return bool((evaluate(mask, program).amax(-1) == -math.inf).any())
    if any(one.fill == -math.inf for one in later):
        return True
    added = [(one.step.value, one.grows) for one in later if isinstance(one.step, Added)]
    for value, grows in added:
        if may_hold(value, program, _may_overflow if grows else _is_infinite):
            return True
    large = [value for value, _ in added if may_hold(value, program, _is_large)]
    return len(large) > 1 and any(may_hold(value, program, _may_overflow) for value in large)


def _hides(numbers: torch.Tensor) -> torch.Tensor:
    """Which numbers hide a score that they are added to, but are above ``_FAR``."""
    return (numbers.abs() >= -_HIDES) & (numbers.abs() <= -_FAR)


def _is_infinite(numbers: torch.Tensor) -> torch.Tensor:
    return numbers.isinf()


def _may_overflow(numbers: torch.Tensor) -> torch.Tensor:
    return numbers.abs() >= _OVERFLOWS


def _is_large(numbers: torch.Tensor) -> torch.Tensor:
    return numbers.abs() >= _LARGE
