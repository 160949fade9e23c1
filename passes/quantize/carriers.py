"""Operators that a positive scale for each channel passes through: f(x / s) = f(x) / s.

Channels are followed by *labels*: in place of a value stands an int64 tensor of its shape that says
which channel's scale each element has. Sizes that are dynamic have a sample size there.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import Node

from strop.compiler.ir.families import CASTS, COPIES, DROPOUTS, EXPANSIONS, MUL, PRODUCTS, VIEWS
from strop.compiler.ir.nodes import arguments

aten = torch.ops.aten
strop = torch.ops.strop

# Dynamic dims have the first multiple of this that their range allows: strides and windows leave
# something of a size that the model takes, and what divides a small one divides this one too.
_SAMPLE_SIZE = 8

Labels = Any
"""A tensor, or a tuple of them for an operator with several results."""


@dataclass(frozen=True)
class Carry:
    """A call, some of whose inputs are scaled.

    Attributes:
        node: the call.
        scaled: labels of the inputs that are.
    """

    node: Node
    scaled: Mapping[Node, Labels]

    def argument(self, name: str) -> Any:
        """An argument by its name in the schema."""
        return arguments(self.node)[name]

    def only(self, *names: str) -> Tensor | None:
        """The labels of the one argument that is scaled, if it is one of these and no other."""
        given = arguments(self.node)
        found = [name for name, value in given.items() if _is_in(value, self.scaled)]
        if len(found) != 1 or found[0] not in names:
            return None
        labels = self.scaled[given[found[0]]]
        return labels if isinstance(labels, Tensor) else None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the result, with sample sizes."""
        return sample_shape(self.node.meta["val"])


def _is_in(value: Any, scaled: Mapping[Node, Labels]) -> bool:
    return isinstance(value, Node) and value in scaled


Carrier = Callable[[Carry], Labels | None]
_CARRIERS: dict[Any, Carrier] = {}


def carried(call: Carry) -> Labels | None:
    """The labels of a call's result; None where a scale does not pass through it."""
    carrier = _CARRIERS.get(call.node.target)
    return None if carrier is None else carrier(call)


def is_carrier(node: Node) -> bool:
    """Whether an operator lets a scale through, on one of its inputs at least."""
    return node.target in _CARRIERS


def sample_shape(value: Tensor) -> tuple[int, ...]:
    """The shape of a FakeTensor, every dynamic dim at its sample size."""
    return tuple(_number(size) for size in value.shape)


def _number(size: int | torch.SymInt) -> int:
    if isinstance(size, int):
        return size
    expr, bounds = size.node.expr, size.node.shape_env.bound_sympy
    sizes = {symbol: _sample(int(bounds(symbol).lower)) for symbol in expr.free_symbols}
    return int(expr.xreplace(sizes))


def _sample(least: int) -> int:
    return max(1, -(-least // _SAMPLE_SIZE)) * _SAMPLE_SIZE


def along(labels: Tensor, axis: int) -> Tensor | None:
    """The label of every position of an axis; None where labels differ along other axes too."""
    lines = labels.movedim(axis, 0).reshape(labels.shape[axis], -1)
    return lines[:, 0].clone() if lines.numel() and bool((lines == lines[:, :1]).all()) else None


def _carries(*targets: Any) -> Callable[[Carrier], Carrier]:
    def enter(carrier: Carrier) -> Carrier:
        _CARRIERS.update(dict.fromkeys(targets, carrier))
        return carrier

    return enter


@_carries(
    *VIEWS,
    *EXPANSIONS,
    operator.getitem,
    aten.chunk.default,
    aten.movedim.int,
    aten.permute.default,
    aten.repeat.default,
    aten.repeat_interleave.self_int,
    aten.select.int,
    aten.slice.Tensor,
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.squeeze.dim,
    aten.t.default,
    aten.transpose.int,
    aten.unbind.int,
    aten.unsqueeze.default,
)
def _moved(call: Carry) -> Labels | None:
    """Elements that are moved or repeated: the operator itself moves the labels."""

    def value(node: Node) -> Any:
        if node in call.scaled:
            return call.scaled[node]
        known = node.meta["val"]
        return torch.zeros(sample_shape(known)) if isinstance(known, Tensor) else _number(known)

    args, kwargs = fx.map_arg((call.node.args, call.node.kwargs), value)
    try:
        return call.node.target(*args, **kwargs)  # type: ignore[operator]
    except RuntimeError:  # a view that does not hold at the sample size of a dynamic dim
        return None


@_carries(
    *COPIES,
    *DROPOUTS,
    *CASTS,
    aten.abs.default,
    aten.leaky_relu.default,
    aten.neg.default,
    aten.prelu.default,
    aten.relu.default,
)
def _element_by_element(call: Carry) -> Labels | None:
    floats = call.node.meta["val"].is_floating_point()
    return call.only("self", "input") if floats else None


@_carries(*MUL, strop.gated.default)
def _factor(call: Carry) -> Labels | None:
    """One factor is scaled; in a gated product the one that no activation is applied to."""
    gated = call.node.target is strop.gated.default
    labels = call.only("up") if gated else call.only("self", "other")
    return None if labels is None else labels.expand(call.shape)


@_carries(aten.div.Tensor, aten.div.Scalar)
def _numerator(call: Carry) -> Labels | None:
    labels = call.only("self")
    return None if labels is None else labels.expand(call.shape)


@_carries(aten.add.Tensor, aten.sub.Tensor)
def _sum(call: Carry) -> Labels | None:
    """Both terms have the same scales."""
    left, right = (call.scaled.get(call.argument(name)) for name in ("self", "other"))
    if left is None or right is None:
        return None
    left, right = torch.broadcast_tensors(left, right)
    return left if torch.equal(left, right) else None


@_carries(*PRODUCTS)
def _right_factor(call: Carry) -> Labels | None:
    """The values of attention: the columns of a product are those of its right factor."""
    labels = call.only("other", "mat2")
    if labels is None or labels.dim() < 2 or not _is_even(labels, -2):
        return None
    return labels[..., :1, :].expand(call.shape)


@_carries(aten.scaled_dot_product_attention.default)
def _attention(call: Carry) -> Labels | None:
    """v [..., groups, keys, size]: query heads one after another share a head of values."""
    labels = call.only("value")
    return None if labels is None else _heads(labels, call.shape)


@_carries(strop.attention.default)
def _dialect_attention(call: Carry) -> Labels | None:
    """v as above, or packed, [batch, keys, groups * size]."""
    labels = call.only("v")
    if labels is None or labels.dim() == 4:
        return None if labels is None else _heads(labels, call.shape)
    queries, groups = int(call.argument("q_heads")), int(call.argument("kv_heads"))
    split = labels.unflatten(-1, (groups, -1)).transpose(1, 2)
    batch, rows, width = call.shape
    made = _heads(split, (batch, queries, rows, width // queries))
    return None if made is None else made.transpose(1, 2).flatten(2)


def _heads(labels: Tensor, shape: tuple[int, ...]) -> Tensor | None:
    """Labels of an attention's result of a shape, from those of its values, split into heads."""
    if not _is_even(labels, -2):
        return None
    rows = labels[..., :1, :]
    if len(shape) > 2 and rows.shape[-3] not in (1, shape[-3]):
        rows = rows.repeat_interleave(shape[-3] // rows.shape[-3], dim=-3)
    return rows.expand(shape)


@_carries(aten.mean.dim, aten.sum.dim_IntList)
def _reduced(call: Carry) -> Labels | None:
    """Over axes along which the scale is one."""
    labels, axes = call.only("self"), call.argument("dim")
    if labels is None or axes is None or not all(_is_even(labels, axis) for axis in axes):
        return None
    return labels.amax(axes, bool(call.argument("keepdim")))


@_carries(
    aten.adaptive_avg_pool1d.default,
    aten.adaptive_avg_pool2d.default,
    aten.avg_pool1d.default,
    aten.avg_pool2d.default,
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.upsample_bilinear2d.vec,
    aten.upsample_nearest2d.vec,
)
def _pooled(call: Carry) -> Labels | None:
    """[batch, channels, *spatial]: within channels."""
    labels = call.only("self", "input")
    channels = None if labels is None else along(labels, 1)
    if channels is None:
        return None
    return channels.reshape(1, -1, *[1] * (len(call.shape) - 2)).expand(call.shape)


def _is_even(labels: Tensor, axis: int) -> bool:
    """Whether all positions of an axis have the same labels."""
    return labels.numel() > 0 and bool((labels == labels.narrow(axis, 0, 1)).all())
