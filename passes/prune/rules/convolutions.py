"""Convolutions and pools: channels are tied, places are not touched."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from strop.compiler.ir.families import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS
from strop.passes.prune.axes import Axes, Call, Read, fresh
from strop.passes.prune.dims import Dim, leaf, product
from strop.passes.prune.roles import CHANNELS, PLACES, mark
from strop.passes.prune.rules.registry import rule

aten = torch.ops.aten


@rule(*CONVOLUTIONS)
def convolution(call: Call) -> list[Axes]:
    """x [n, in, ...], weight [out, in / groups, ...]; in and out are groups of channels."""
    weight = call.axes("weight")
    return [_convolved(call, outputs=weight[0], of_a_group=weight[1], transposed=False)]


@rule(*TRANSPOSED_CONVOLUTIONS)
def transposed(call: Call) -> list[Axes]:
    """x [n, in, ...], weight [in, out / groups, ...]."""
    weight = call.axes("weight")
    return [_convolved(call, outputs=weight[1], of_a_group=weight[0], transposed=True)]


def _convolved(call: Call, outputs: Dim, of_a_group: Dim, transposed: bool) -> Axes:
    x, weight = call.axes("input"), call.axes("weight")
    spatial = len(weight) - 2
    channels = x[-spatial - 1]
    groups = int(call.given["groups"])
    each = leaf(groups)
    if transposed:
        inputs = of_a_group if groups == 1 else _grouped(call, of_a_group, each)
        made = outputs if groups == 1 else product([each, outputs])
    else:
        inputs = of_a_group if groups == 1 else product([each, of_a_group])
        made = outputs if groups == 1 else _grouped(call, outputs, each)
    call.tie(channels, inputs)
    mark(CHANNELS, inputs, made)
    if call.given["bias"] is not None:
        call.tie(made, call.axes("bias")[0])
    if groups > 1:
        call.bake("groups", [each], lambda new: int(new[0]))
    else:
        axis = 0 if transposed else 1
        read = Read(call.given["input"], -spatial - 1, call.given["weight"], axis - len(weight))
        call.found.reads.append(read)
    places = fresh(call.shape()[-spatial:])
    _hold_places(call, [*x[-spatial:], *weight[2:], *places])
    return [*x[: -spatial - 1], made, *places]


def _grouped(call: Call, dim: Dim, groups: Dim) -> Dim:
    """An axis as groups of positions."""
    if isinstance(dim.size, int):
        call.tie(dim, product([groups, leaf(dim.size // int(groups.size))]))
    return dim


def _hold_places(call: Call, dims: Sequence[Dim]) -> None:
    call.freeze("a window moves over it", dims)
    mark(PLACES, *dims)


def _pooled(call: Call, x: Sequence[Dim], spatial: int) -> Axes:
    places = fresh(call.shape()[len(x) - spatial :])
    _hold_places(call, [*x[len(x) - spatial :], *places])
    return [*x[: len(x) - spatial], *places]


def _pool(spatial: int, *names: str) -> None:
    def rule_of_pool(call: Call) -> list[Axes]:
        made = _pooled(call, call.tensors()[0], spatial)
        return [made for _ in call.shapes()]

    for name in names:
        packet = getattr(aten, name)
        plain = [o for o in packet.overloads() if "out" not in o]
        rule(*(getattr(packet, o) for o in plain))(rule_of_pool)


for _axes in (1, 2, 3):
    _pool(_axes, *(f"{kind}_pool{_axes}d" for kind in ("max", "avg")))
    _pool(_axes, *(f"adaptive_{kind}_pool{_axes}d" for kind in ("max", "avg")))
_pool(1, "upsample_nearest1d", "upsample_linear1d")
_pool(2, "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d")
_pool(3, "upsample_nearest3d", "upsample_trilinear3d")
