"""A small language for the shape of a subgraph; a failed match says where and why."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx.node import Node

from strop.compiler.ir.nodes import arguments, dtype_of
from strop.compiler.ir.printer import describe, op_name

# So many nodes of a pattern must match for a miss to be worth telling the user.
NEAR = 2


@dataclass
class Match:
    """What a pattern found: the root, the variables bound, the operator nodes inside it."""

    root: Node
    bound: dict[str, Any] = field(default_factory=dict)
    inside: list[Node] = field(default_factory=list)

    def __getitem__(self, name: str) -> Any:
        return self.bound[name]

    def get(self, name: str) -> Any:
        """The bound value, or None where an alternative without it matched."""
        return self.bound.get(name)

    def fork(self) -> Match:
        """A copy to try one alternative on."""
        return Match(self.root, dict(self.bound), list(self.inside))


@dataclass(frozen=True)
class Miss:
    """Why something did not match: the condition, the node, and how deep the match had come."""

    reason: str
    node: Node | None = None
    depth: int = 0

    def without_names(self) -> str:
        """The condition and the operator that it failed at: equal in layers that repeat."""
        if self.node is None:
            return self.reason
        called = self.node.op == "call_function"
        return f"{self.reason} at {op_name(self.node.target) if called else self.node.op}"

    def __str__(self) -> str:
        return f"{self.reason} at {describe(self.node)}" if self.node else self.reason


class Pattern(ABC):
    """Anything that can be matched with a value of the graph."""

    @abstractmethod
    def match(self, value: Any, into: Match) -> Miss | None:
        """Bind variables in ``into`` and return None, or return the reason it does not match."""


@dataclass(frozen=True)
class Var(Pattern):
    """Any value, bound to a name; the same name twice means the same value.

    Attributes:
        where: an extra condition on the value.
        says: that condition in words.
    """

    name: str
    where: Callable[[Any], bool] | None = None
    says: str = "the condition"

    def match(self, value: Any, into: Match) -> Miss | None:
        node = value if isinstance(value, Node) else None
        if self.name in into.bound and not _same(into.bound[self.name], value):
            return Miss(f"'{self.name}' would be two different values", node, len(into.inside))
        if self.where is not None and not self.where(value):
            return Miss(f"'{self.name}' is not {self.says}", node, len(into.inside))
        into.bound[self.name] = value
        return None


def _same(a: Any, b: Any) -> bool:
    return a is b if isinstance(a, Node) or isinstance(b, Node) else bool(a == b)


@dataclass(frozen=True)
class Lit(Pattern):
    """A number, within a relative 1e-4 (constants like sqrt(2/pi) are typed by hand)."""

    value: float

    def match(self, value: Any, into: Match) -> Miss | None:
        if isinstance(value, (int, float)) and abs(value - self.value) <= 1e-4 * abs(self.value):
            return None
        node = value if isinstance(value, Node) else None
        return Miss(f"expected the number {self.value:g}, found {value}", node, len(into.inside))


@dataclass(frozen=True)
class Either(Pattern):
    """The first alternative that matches."""

    options: tuple[Pattern, ...]

    def match(self, value: Any, into: Match) -> Miss | None:
        best: Miss | None = None
        for option in self.options:
            attempt = into.fork()
            miss = option.match(value, attempt)
            if miss is None:
                into.bound, into.inside = attempt.bound, attempt.inside
                return None
            if best is None or miss.depth > best.depth:
                best = miss
        return best


class Op(Pattern):
    """A call of one of the targets whose first arguments match; the others keep their defaults.

    Args:
        target: an overload, or several that mean the same here.
        args: patterns or literal values for the leading schema arguments.
        name: bind the node itself.
        swap: also try the first two arguments exchanged.
        any_rest: accept any value in the remaining arguments.
        kwargs: patterns or literal values for further schema arguments by name.
    """

    def __init__(
        self,
        target: OpOverload[Any, Any] | tuple[OpOverload[Any, Any], ...],
        *args: Any,
        name: str | None = None,
        swap: bool = False,
        any_rest: bool = False,
        **kwargs: Any,
    ) -> None:
        self.targets = target if isinstance(target, tuple) else (target,)
        self.args = args
        self.name = name
        self.swap = swap
        self.any_rest = any_rest
        self.kwargs = kwargs

    def match(self, value: Any, into: Match) -> Miss | None:
        depth = len(into.inside)
        if not isinstance(value, Node) or value.target not in self.targets:
            wanted = " or ".join(op_name(t) for t in self.targets)
            found = value if isinstance(value, Node) else None
            return Miss(f"expected {wanted}", found, depth)
        if value is not into.root and len(value.users) > 1:
            # The operator is the one that was wanted: one step further than where it is not.
            return Miss("an inner value is used elsewhere too", value, depth + 1)
        into.inside.append(value)
        orders = [self.args]
        if self.swap:
            orders.append((self.args[1], self.args[0], *self.args[2:]))
        return Either(tuple(_Arguments(self, o) for o in orders)).match(value, into)


@dataclass(frozen=True)
class _Arguments(Pattern):
    """One order of an operator's argument patterns."""

    op: Op
    order: tuple[Any, ...]

    def match(self, value: Any, into: Match) -> Miss | None:
        actual = arguments(value)
        wanted = dict(zip(actual, self.order)) | self.op.kwargs
        for name, argument in actual.items():
            if name in wanted:
                miss = _hold(wanted[name], argument, into)
            elif self.op.any_rest or argument == _default(value, name):
                miss = None
            else:
                miss = Miss(f"argument '{name}' is {argument}", value, len(into.inside))
            if miss is not None:
                return miss
        if self.op.name:
            into.bound[self.op.name] = value
        return None


def _hold(pattern: Any, value: Any, into: Match) -> Miss | None:
    if isinstance(pattern, Pattern):
        return pattern.match(value, into)
    if pattern == value:
        return None
    return Miss(f"expected {pattern}, found {value}", into.inside[-1], len(into.inside))


def _default(node: Node, name: str) -> Any:
    schema = next(a for a in node.target._schema.arguments if a.name == name)  # type: ignore[union-attr]
    return schema.default_value


def is_float(value: Any) -> bool:
    """Whether a bound value is a floating-point tensor of the graph."""
    return (
        isinstance(value, Node)
        and isinstance(value.meta.get("val"), torch.Tensor)
        and dtype_of(value).is_floating_point
    )


def is_weight(value: Any) -> bool:
    """Whether a bound value is a weight."""
    return isinstance(value, Node) and value.op == "get_attr"


def is_number(value: Any) -> bool:
    """Whether a bound value is a literal number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
