"""Sums, means and extremes over axes."""

from __future__ import annotations

from typing import Any

import torch

from strop.passes.prune.axes import Axes, Call, axes_of
from strop.passes.prune.dims import leaf
from strop.passes.prune.rules.norms import inexact
from strop.passes.prune.rules.registry import rule

aten = torch.ops.aten
ADDING = (aten.sum.default, aten.sum.dim_IntList, aten.cumsum.default)
OTHERS = (
    aten.mean.default,
    aten.mean.dim,
    aten.amax.default,
    aten.amin.default,
    aten.max.default,
    aten.min.default,
    aten.prod.default,
    aten.prod.dim_int,
    aten.var.correction,
    aten.var.dim,
    aten.std.correction,
    aten.std.dim,
    aten.norm.ScalarOpt_dim,
    aten.linalg_vector_norm.default,
    aten.logsumexp.default,
    aten.all.default,
    aten.all.dim,
    aten.any.default,
    aten.any.dim,
)
PICKING = (aten.argmax.default, aten.argmin.default, aten.max.dim, aten.min.dim)


@rule(*ADDING, *OTHERS, *PICKING)
def reduce(call: Call) -> list[Axes]:
    """The axes that are not reduced."""
    x = call.tensors()[0]
    over = _over(call, x)
    reduced = [x[i] for i in over]
    if call.node.target in PICKING:
        call.freeze("it gives the place of a position", reduced)
    elif call.node.target not in ADDING:
        inexact(call, reduced)
    if call.node.target is aten.cumsum.default:
        return [x]
    keep = bool(call.given.get("keepdim", False))
    made = [leaf(1) if i in over else dim for i, dim in enumerate(x) if keep or i not in over]
    return [made for _ in call.shapes()]


def _over(call: Call, x: Axes) -> list[int]:
    asked: Any = call.given.get("dim")
    if asked is None or asked == []:
        return list(range(len(x)))
    return axes_of(asked, x)
