"""The ways to lower one operator call, in the order in which they are tried."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx.node import Node
from torch.utils import _pytree as pytree

from strop.compiler.ir.builder import fake_mode_of
from strop.compiler.ir.nodes import arguments
from strop.compiler.lower.onnx.decompose import decompose
from strop.compiler.lower.onnx.emitter import Emitter
from strop.compiler.lower.onnx.refusal import NotLowered
from strop.compiler.lower.onnx.table import TABLE, choose
from strop.compiler.lower.onnx.torchlib import emit_by_torchlib


def emit_call(on: Emitter, node: Node) -> Any:
    """Emit a call by the first candidate that takes it; returns its value or values.

    A row of the lowering table is what was chosen for the operator; torch's own decomposition is
    right by definition, at every size; what ``torch.onnx`` has for the operator is tried out first.

    Raises:
        NotLowered: with what every candidate said.
    """
    refusals: list[str] = []
    row = choose(node.target, on.choices)
    if row is not None:
        try:
            return row(on, *arguments(node).values())
        except NotLowered as reason:
            refusals.append(str(reason))
    else:
        _require_decomposable(node)
    for emit in (_emit_decomposed, emit_by_torchlib):
        try:
            return emit(on, node)
        except NotLowered as reason:
            refusals.append(str(reason))
    raise NotLowered("; ".join(dict.fromkeys(refusals)))


def _require_decomposable(node: Node) -> None:
    """Refuse a call without a row that the other candidates cannot take either.

    Raises:
        NotLowered: it is no operator of torch's, or its results are random.
    """
    if getattr(node.target, "namespace", "") not in ("aten", "prims"):
        raise NotLowered("not an ATen operator, and no row of the lowering table names it")
    if torch.Tag.nondeterministic_seeded in node.target.tags:  # type: ignore[union-attr]
        raise NotLowered(
            "it draws random numbers, which an artifact cannot: draw them outside of the model "
            "and give them as an input"
        )


def _emit_decomposed(on: Emitter, node: Node) -> Any:
    """Emit torch's decomposition of a call in its place."""
    part = decompose(node, fake_mode_of(on.program), TABLE)
    on.inline(part, [on.value(n) for n in node.all_input_nodes])
    leaves, structure = pytree.tree_flatten(part.graph.output_node().args[0])
    return pytree.tree_unflatten([on.value(leaf) for leaf in leaves], structure)
