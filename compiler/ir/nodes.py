"""What a node of the graph says of itself: its arguments, and the type of its value."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from functools import cache
from typing import Any

import torch
from torch._ops import OpOverload
from torch.fx.node import Node


@cache
def _schema(target: OpOverload[Any, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(
        (a.name, a.default_value if a.has_default_value() else inspect.Parameter.empty)
        for a in target._schema.arguments
    )


def arguments(node: Node) -> dict[str, Any]:
    """All arguments of an operator call by schema name, defaults filled in, in schema order."""
    if not isinstance(node.target, OpOverload):
        return {str(i): a for i, a in enumerate(node.args)}
    values = list(node.args)
    filled = {}
    for i, (name, default) in enumerate(_schema(node.target)):
        filled[name] = values[i] if i < len(values) else node.kwargs.get(name, default)
    return filled


def argument_names(node: Node) -> list[str]:
    """The names of an operator call's arguments, in schema order."""
    return list(arguments(node))


def arg(node: Node, index: int) -> Any:
    """A positional argument as written, without fx's union of everything it might be."""
    return node.args[index]


def input_node(node: Node, index: int = 0) -> Node:
    """A positional argument that is a value of the graph."""
    value = node.args[index]
    assert isinstance(value, Node), f"argument {index} of {node.format_node()} is no value"
    return value


def value_of(node: Node) -> Any:
    """The FakeTensor or SymInt that stands for this node's value."""
    return node.meta["val"]


def tensors_of(node: Node) -> list[torch.Tensor]:
    """The FakeTensors of a node's value: one, those of several results, or none for a size."""
    value = node.meta.get("val")
    values = value if isinstance(value, (tuple, list)) else [value]
    return [v for v in values if isinstance(v, torch.Tensor)]


def has_floats(node: Node) -> bool:
    """Whether a node's value, or one of its several results, is a float tensor."""
    return any(v.is_floating_point() for v in tensors_of(node))


def shape_of(value: Any) -> tuple[int | torch.SymInt, ...]:
    """Sizes of a tensor-valued node."""
    return tuple(value_of(value).shape)


def dtype_of(value: Any) -> torch.dtype:
    """Element type of a tensor-valued node."""
    dtype: torch.dtype = value_of(value).dtype
    return dtype


def expression(size: int | torch.SymInt | torch.SymFloat) -> Any:
    """A size as a plain int or a sympy expression, so that equal sizes compare equal."""
    return size.node.expr if isinstance(size, (torch.SymInt, torch.SymFloat)) else size


def same_size(a: int | torch.SymInt, b: int | torch.SymInt) -> bool:
    """Whether two sizes are equal for every value of the dynamic dims (never adds a guard)."""
    return bool(expression(a) == expression(b))


def same_shape(a: Iterable[int | torch.SymInt], b: Iterable[int | torch.SymInt]) -> bool:
    """Whether two shapes are equal for every value of the dynamic dims (never adds a guard)."""
    left, right = tuple(a), tuple(b)
    return len(left) == len(right) and all(same_size(x, y) for x, y in zip(left, right))


def static_int(value: Any) -> int | None:
    """The number behind an argument if it is the same at every dynamic size, else None."""
    if isinstance(value, Node):
        value = value_of(value)
    if isinstance(value, torch.SymInt):
        expr = value.node.expr
        return int(expr) if expr.is_Integer else None
    return value if isinstance(value, int) else None


def per_axis(value: Any, axes: int) -> list[int]:
    """A setting of a convolution for each spatial axis: torch repeats a single one."""
    values = [value] if isinstance(value, int) else list(value)
    return values * axes if len(values) == 1 else values
