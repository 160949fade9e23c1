"""Which values must be rounded as the original rounds them.

A sum in float32 instead of float16 moves a result by a little. Behind an operator that jumps, such
as ``floor`` or a comparison, that little becomes a whole unit, or another index.
"""

from __future__ import annotations

import torch
from torch._ops import OpOverload
from torch.fx.node import Node

from strop.compiler.ir.nodes import arguments, has_floats, tensors_of
from strop.compiler.ir.program import Program

aten = torch.ops.aten

_JUMPS = (
    aten.all, aten.any, aten.argmax, aten.argmin, aten.argsort, aten.bucketize, aten.ceil, aten.eq,
    aten.floor, aten.floor_divide, aten.fmod, aten.frac, aten.ge, aten.gt, aten.heaviside,
    aten.histc, aten.isclose, aten.isfinite, aten.isin, aten.isinf, aten.isnan, aten.isneginf,
    aten.isposinf, aten.kthvalue, aten.le, aten.logical_and, aten.logical_not, aten.logical_or,
    aten.logical_xor, aten.lt, aten.median, aten.mode, aten.nanmedian, aten.ne, aten.nonzero,
    aten.remainder, aten.round, aten.searchsorted, aten.sgn, aten.sign, aten.signbit, aten.sort,
    aten.topk, aten.trunc, aten.unique_consecutive, aten.unique_dim,
)  # fmt: skip


def jumps(node: Node) -> bool:
    """Whether an operator's result may change by far where its input changes by a little."""
    target = node.target
    if not isinstance(target, OpOverload):
        return False
    if target.overloadpacket in _JUMPS:
        return True
    if "rounding_mode" in (given := arguments(node)):
        return given["rounding_mode"] is not None
    # The place of a largest element, or a float as an integer or a truth value.
    results = [v for v in tensors_of(node) if not v.is_floating_point()]
    return bool(results) and any(has_floats(n) for n in node.all_input_nodes)


def before_jumps(program: Program) -> set[Node]:
    """The values from which an operator that jumps computes, directly or through others."""
    found: set[Node] = set()
    for node in reversed(program.graph.nodes):
        if node in found or jumps(node):
            found.update(n for n in node.all_input_nodes if tensors_of(n))
    return found
