"""Decide which calls of a program compute in 16 bits, and which keep float32."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.fx.node import Node

from strop.compiler.ir.constants import constant_nodes, is_weight_expression, weight_names
from strop.compiler.ir.nodes import tensors_of
from strop.compiler.ir.printer import op_name
from strop.compiler.ir.program import Program
from strop.passes.precision.operators import (
    Kind,
    computes_turns,
    is_bounded,
    is_softmax,
    kind_of,
    mask_of,
    reason_of,
    widens,
)
from strop.passes.precision.ranges import is_too_large, is_too_small, large_weights, numbers_in
from strop.passes.quantize.selection import Selection

_BETWEEN = "values on their way from one that is float32 to another"
_NUMBER = "it has a number that {dtype} does not hold"
_TAKES = "it takes numbers beyond the {most:g} of {dtype}"
_WEIGHT = "weight '{name}' holds {number:g}, beyond the {most:g} of {dtype}"
_TURNS = "whole turns are computed from it"
_SCORES = "a softmax is computed from it"


@dataclass(frozen=True)
class Plan:
    """What is computed how.

    Attributes:
        narrow: the calls that compute in 16 bits, in program order.
        kept: why each of the others keeps float32, in words; of calls that give floats.
        unbounded: values that may hold finite numbers beyond the range of 16 bits.
    """

    narrow: tuple[Node, ...]
    kept: dict[Node, str]
    unbounded: frozenset[Node]

    def notes(self) -> list[str]:
        """Why operators keep float32, in a sentence for each reason."""
        by_reason: dict[str, Counter[str]] = {}
        for node, reason in self.kept.items():
            by_reason.setdefault(reason, Counter())[op_name(node.target)] += 1
        return [
            f"float32 is kept for {', '.join(f'{op} ({n})' for op, n in counted.items())}: {reason}"
            for reason, counted in by_reason.items()
        ]


def plan_of(program: Program, dtype: torch.dtype, selection: Selection) -> Plan:
    """Decide for every call of a program.

    Args:
        program: in float32.
        dtype: of 16 bits.
        selection: whose layers are not kept by name.
    """
    return _Planner(program, dtype, selection).plan()


class _Planner:
    """Decides for the calls of one program.

    Attributes:
        calls: those that take or give float32, but for constants, which are computed in it.
        weights: those with numbers beyond the range of 16 bits, and the largest number.
        given: float32 inputs, which may hold any number.
        large: values with numbers beyond it, as weights and literals say.
    """

    def __init__(self, program: Program, dtype: torch.dtype, selection: Selection) -> None:
        self.program, self.dtype, self.selection = program, dtype, selection
        fixed = constant_nodes(program)
        calls = (n for n in program.calls() if n not in fixed and not widens(n, dtype))
        self.calls = [n for n in calls if _has_float32(n)]
        self.given = [n for n in program.graph.find_nodes(op="placeholder") if gives_float32(n)]
        self.weights = large_weights(program, dtype)
        literal = [n for n in program.calls() if any(map(self._is_large, numbers_in(n)))]
        self.large = _reached(program, [*self.weights, *literal])

    def plan(self) -> Plan:
        kept = dict(self._kept())
        kept |= dict.fromkeys(self._between(kept), _BETWEEN)
        return Plan(
            tuple(n for n in self.calls if n not in kept and gives_float32(n)),
            {n: kept[n] for n in self.calls if n in kept and gives_float32(n)},
            frozenset(self.large | _reached(self.program, self.given)),
        )

    def _kept(self) -> Iterator[tuple[Node, str]]:
        """The calls that keep float32 for themselves, and why."""
        turns = self._leading_to(computes_turns, lambda n: not self._is_layer(n))
        scores = self._leading_to(is_softmax, lambda n: kind_of(n) is Kind.LIGHT)
        for node in self.calls:
            kind = kind_of(node)
            if kind is Kind.WIDE:
                yield node, reason_of(node)
            elif node in turns:
                yield node, _TURNS
            elif node in scores:
                yield node, _SCORES
            elif (reason := self._kept_by_name(node) or self._large_input(node)) is not None:
                yield node, reason
            elif kind is Kind.LIGHT and any(map(self._is_lost, numbers_in(node))):
                yield node, self._told(_NUMBER)

    def _kept_by_name(self, node: Node) -> str | None:
        """Why the user keeps a call, by the names of the weights that it reads."""
        constant = [n for n in node.all_input_nodes if is_weight_expression(n)]
        names = [name for n in constant for name in weight_names(n)]
        return self.selection.why_not(names) if names else None

    def _large_input(self, node: Node) -> str | None:
        """What a call takes that is beyond the range of 16 bits, in words.

        Not its mask: numbers that hide a place may be any that are low enough.
        """
        taken = [n for n in node.all_input_nodes if n in self.large and n is not mask_of(node)]
        if not taken:
            return None
        names = weight_names(taken[0]) if is_weight_expression(taken[0]) else []
        for weight, number in self.weights.items():
            if str(weight.target) in names:
                return self._told(_WEIGHT, name=weight.target, number=number)
        return self._told(_TAKES)

    def _told(self, template: str, **values: object) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return template.format(dtype=dtype, most=torch.finfo(self.dtype).max, **values)

    def _is_large(self, number: float) -> bool:
        return is_too_large(number, self.dtype)

    def _is_lost(self, number: float) -> bool:
        return self._is_large(number) or is_too_small(number, self.dtype)

    def _leading_to(
        self, is_end: Callable[[Node], bool], passes: Callable[[Node], bool]
    ) -> set[Node]:
        """The float32 values that some calls are computed from, as far back as they pass."""
        found: set[Node] = set()
        pending = [n for n in self.calls if is_end(n)]
        while pending:
            for node in pending.pop().all_input_nodes:
                if node not in found and gives_float32(node) and passes(node):
                    found.add(node)
                    pending.append(node)
        return found

    def _is_layer(self, node: Node) -> bool:
        weights = [self.program.weight_of(n) for n in node.all_input_nodes]
        return kind_of(node) is Kind.HEAVY and any(isinstance(w, nn.Parameter) for w in weights)

    def _between(self, kept: Iterable[Node]) -> set[Node]:
        """Light calls on a way from float32 to float32: casts on it would only lose digits.

        At the end of a way stands a call that keeps float32, or one that adds a mask.
        """
        wide = set(kept)
        light = [n for n in self.calls if n not in wide and kind_of(n) is Kind.LIGHT]
        behind, before = wide.union(self.given), set(wide)
        for node in light:
            if any(n in behind for n in node.all_input_nodes):
                behind.add(node)
        for node in reversed(light):
            if any(n in before or mask_of(n) is node for n in node.users):
                before.add(node)
        return behind.intersection(before, light)


def _reached(program: Program, seeds: Iterable[Node]) -> set[Node]:
    """The seeds, and what light operators make of them, as far as results have no bounds."""
    found = set(seeds)
    for node in program.calls():
        passes_on = kind_of(node) is Kind.LIGHT and not is_bounded(node)
        if passes_on and any(n in found for n in node.all_input_nodes):
            found.add(node)
    return found


def gives_float32(node: Node) -> bool:
    """Whether a value is a float32 tensor, or several results among which is one."""
    return any(v.dtype == torch.float32 for v in tensors_of(node))


def _has_float32(node: Node) -> bool:
    return any(gives_float32(n) for n in (node, *node.all_input_nodes))
