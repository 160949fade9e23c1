"""Norms: statistics over an axis are not the same without a position as with a zero there."""

from __future__ import annotations

import torch

from strop.passes.prune.axes import Axes, Call
from strop.passes.prune.dims import leaf, leaves, product
from strop.passes.prune.rules.pointwise import broadcast
from strop.passes.prune.rules.registry import rule

aten = torch.ops.aten


def inexact(call: Call, axes: Axes) -> None:
    """Note that zeros on these axes change the result elsewhere."""
    for one in leaves(*axes):
        one.inexact.setdefault(str(call))


@rule(aten.layer_norm.default, aten.rms_norm.default)
def layer_norm(call: Call) -> list[Axes]:
    """Over the last axes, which weight and bias share."""
    x = call.axes("input")
    over = x[len(x) - len(call.given["normalized_shape"]) :]
    for name in ("weight", "bias"):
        if call.given.get(name) is not None:
            broadcast(call, over, call.axes(name))
    inexact(call, over)
    call.bake_sizes("normalized_shape", over)
    return [x]


@rule(aten.batch_norm.default)
def batch_norm(call: Call) -> list[Axes]:
    """A factor and a shift for each channel, axis 1."""
    x = call.axes("input")
    for name in ("weight", "bias", "running_mean", "running_var"):
        if call.given[name] is not None:
            call.tie(x[1], call.axes(name)[0])
    return [x]


@rule(aten.instance_norm.default)
def instance_norm(call: Call) -> list[Axes]:
    """Statistics over the axes behind the channels."""
    inexact(call, call.axes("input")[2:])
    return batch_norm(call)


@rule(aten.group_norm.default)
def group_norm(call: Call) -> list[Axes]:
    """Channels are groups of channels; statistics are those of a group."""
    x, groups = list(call.axes("input")), int(call.given["num_groups"])
    channels = x[1]
    if isinstance(channels.size, int):
        outer, inner = leaf(groups), leaf(channels.size // groups)
        call.tie(channels, product([outer, inner]))
        inexact(call, [inner, *x[2:]])
        call.bake("num_groups", [outer], lambda new: int(new[0]))
    for name in ("weight", "bias"):
        if call.given[name] is not None:
            call.tie(x[1], call.axes(name)[0])
    return [x]


@rule(aten.softmax.int, aten.log_softmax.int, aten._softmax.default, aten._log_softmax.default)
def softmax(call: Call) -> list[Axes]:
    """Shares of a sum along one axis."""
    x = call.axes("self")
    inexact(call, x[call.axis("dim", len(x)) :][:1])
    return [x]


@rule(aten._weight_norm.default)
def weight_norm(call: Call) -> list[Axes]:
    """v divided by its norm over all axes but one, times g."""
    v, g = call.axes("v"), call.axes("g")
    axis = call.axis("dim", len(v))
    inexact(call, [dim for i, dim in enumerate(v) if i != axis])
    return [broadcast(call, v, g)]
