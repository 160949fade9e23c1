"""In-place operators as functional ones, without decomposing anything else.

``ExportedProgram.run_decompositions({})`` makes a graph functional too, but it rewrites the whole
of it: ``reshape`` becomes ``clone`` and ``view``, ``batch_norm`` becomes three results. Nearly
every write is to a tensor that was just made and that nothing else views; there, naming the
functional twin is enough.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload
from torch.fx.node import Node

from strop.compiler.ir.builder import fake_result

aten = torch.ops.aten

# Composite operators whose schemas do not say so, but whose results are always new.
_FRESH = (
    aten.linear, aten.conv1d, aten.conv2d, aten.conv3d, aten.batch_norm, aten.layer_norm,
    aten.group_norm, aten.instance_norm, aten.rms_norm, aten.matmul, aten.pad,
    aten.scaled_dot_product_attention, aten.softmax, aten.log_softmax, aten.zeros, aten.ones,
    aten.full, aten.arange, aten.lift_fresh_copy, aten.tile, aten.repeat_interleave,
    aten.adaptive_avg_pool2d, aten.max_pool2d, aten.where, aten.lift,
)  # fmt: skip


def writes_in_place(graph: fx.Graph) -> bool:
    """Whether any operator writes to one of its arguments."""
    return any(_is_mutable(node) for node in graph.nodes)


def make_functional(graph: fx.Graph) -> None:
    """Replace in-place operators whose argument is new and has no other view; leave the rest."""
    for node in list(graph.nodes):
        if not _is_mutable(node) or not isinstance(node.args[0], Node):
            continue
        twin, written = _twin(node.target), node.args[0]
        if twin is None:
            continue
        if _changes_values(node) and not (_owns_its_memory(written) and _keeps_type(twin, node)):
            continue
        node.target = twin
        for user in [u for u in written.users if node < u]:
            user.replace_input_with(written, node)


def _is_mutable(node: Node) -> bool:
    return isinstance(node.target, OpOverload) and node.target._schema.is_mutable


def _twin(target: Any) -> OpOverload[Any, Any] | None:
    """``aten.add.Tensor`` for ``aten.add_.Tensor``; None where there is no such operator."""
    name = target._schema.name.removeprefix("aten::")
    written = [a for a in target._schema.arguments if a.alias_info and a.alias_info.is_write]
    if not name.endswith("_") or len(written) != 1:
        return None
    packet = getattr(aten, name.removesuffix("_"), None)
    overload: OpOverload[Any, Any] | None = getattr(packet, target._overloadname, None)
    if overload is None or len(overload._schema.arguments) != len(target._schema.arguments):
        return None
    return overload


def _changes_values(node: Node) -> bool:
    """Whether the values change; dropout out of training, and detaching, leave them."""
    if node.target is aten.dropout_.default:
        return bool(node.args[2])
    return node.target is not aten.detach_.default


def _keeps_type(twin: OpOverload[Any, Any], node: Node) -> bool:
    """Whether promotion leaves the type of what is written to, as the in-place form does."""
    dtype: torch.dtype = fake_result(twin, node.args, node.kwargs).dtype
    written: torch.dtype = node.meta["val"].dtype
    return dtype == written


def _owns_its_memory(tensor: Node) -> bool:
    """Whether a tensor was made by its operator and has no view."""
    return _is_fresh(tensor) and all(_is_fresh(u) or _is_mutable(u) for u in tensor.users)


def _is_fresh(node: Node) -> bool:
    """Whether an operator's result shares no memory with its arguments."""
    if node.op == "output":
        return True
    if not isinstance(node.target, OpOverload) or node.target._schema.is_mutable:
        return False
    if any(r.alias_info is not None for r in node.target._schema.returns):
        return False
    composite = node.target.has_kernel_for_dispatch_key(
        torch._C.DispatchKey.CompositeImplicitAutograd
    )
    return not composite or node.target.overloadpacket in _FRESH
