"""Which input of a program marks padding, read off its attention."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.fx.node import Node

from strop.compiler.ir.families import ADD
from strop.compiler.ir.nodes import arguments, dtype_of, shape_of
from strop.compiler.ir.printer import is_size
from strop.compiler.ir.program import Program

aten = torch.ops.aten
_MASKING = (*ADD, aten.masked_fill.Scalar, aten.masked_fill.Tensor, aten.where.self)
_ATTENTION = aten.scaled_dot_product_attention.default
_SOFTMAX = (aten.softmax.int, aten._softmax.default)


def padding_mask(program: Program) -> str | None:
    """The name of the one input [batch, seq] that the masks of attention are computed from.

    Its ones mark what counts. A boolean input is never taken: some models mark padding with True,
    others with False.
    """
    learned = _depends_on_weights(program)
    found: set[str] = set()
    for mask in _masks(program, learned):
        found |= {str(n.target) for n in _inputs(mask) if _may_mark_padding(n)}
    return found.pop() if len(found) == 1 else None


def _masks(program: Program, learned: set[Node]) -> Iterator[Node]:
    """What is added to scores of attention, or chooses among them, and holds no weight."""
    for node in program.find(_ATTENTION):
        mask = arguments(node)["attn_mask"]
        if isinstance(mask, Node):
            yield mask
    for node in program.find(*_SOFTMAX):
        scores = node.all_input_nodes[0]
        if scores.target in _MASKING:
            yield from (n for n in scores.all_input_nodes if n not in learned)


def _depends_on_weights(program: Program) -> set[Node]:
    """Values that are computed from trained weights."""
    found: set[Node] = set()
    for node in program.graph.nodes:
        own = isinstance(program.weight_of(node), nn.Parameter)
        if own or any(used in found for used in node.all_input_nodes):
            found.add(node)
    return found


def _inputs(node: Node) -> Iterator[Node]:
    """Inputs from whose elements, not sizes, a value is computed."""
    seen, pending = {node}, [node]
    while pending:
        one = pending.pop()
        if one.op == "placeholder":
            yield one
        new = [n for n in one.all_input_nodes if n not in seen and not is_size(n)]
        seen.update(new)
        pending.extend(new)


def _may_mark_padding(node: Node) -> bool:
    return len(shape_of(node)) == 2 and dtype_of(node) != torch.bool
